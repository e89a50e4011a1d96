"""What a container of ours is, seen from outside and from inside."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import docker
import pytest

from jupyter_sandbox.engines.docker.container import WORKSPACE, configuration
from jupyter_sandbox.engines.docker.door import door_path
from jupyter_sandbox.engines.docker.isolation import isolation
from jupyter_sandbox.options import MIB, ResolvedLimits

from .conftest import Place, out

pytestmark = pytest.mark.docker


async def test_the_container_is_what_the_design_says(place: Place, client: docker.APIClient) -> None:
    await place.start()
    found = client.inspect_container(place.name)
    config, host = found["Config"], found["HostConfig"]
    assert config["User"] == "1000:1000"
    assert config["Hostname"] == "sandbox"
    assert config["WorkingDir"] == WORKSPACE
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Privileged"] is False
    assert host["Init"] is True
    assert (host["IpcMode"], host["CgroupnsMode"], host["NetworkMode"]) == ("private", "private", "none")
    assert (host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("", "", "")
    assert host["RestartPolicy"]["Name"] == "no"
    assert not host["PortBindings"]
    assert host["Memory"] == host["MemorySwap"] == 256 * MIB
    assert host["NanoCpus"] == 10**9
    assert host["PidsLimit"] == 64
    assert host["LogConfig"]["Type"] == "local"
    assert {limit["Name"] for limit in host["Ulimits"]} == {"nofile", "core"}


async def test_the_only_mounts_are_the_hand_off_directory_and_the_workspace(
    place: Place, client: docker.APIClient
) -> None:
    await place.start()
    mounts = {mount["Destination"]: mount for mount in client.inspect_container(place.name)["Mounts"]}
    assert set(mounts) == {"/run/sandbox", WORKSPACE}
    assert mounts["/run/sandbox"]["RW"] is False
    assert mounts[WORKSPACE]["Type"] == "volume"


async def test_engine_objects_are_named_by_the_lifetime_and_labelled_with_nothing_else(
    place: Place, client: docker.APIClient
) -> None:
    await place.start()
    wanted = {
        "org.jupyter.sandbox.installation": place.installation,
        "org.jupyter.sandbox.lifetime": place.lifetime,
    }
    assert client.inspect_volume(place.name)["Labels"] == wanted
    labels = client.inspect_container(place.name)["Config"]["Labels"]
    assert {name: value for name, value in labels.items() if name != "org.jupyter.sandbox.version"} == wanted


async def test_the_environment_of_a_sandbox_is_nowhere_in_its_container(place: Place, client: docker.APIClient) -> None:
    await place.start(env={"TOKEN": "s3cret-value"})
    assert "s3cret-value" not in json.dumps(client.inspect_container(place.name))
    assert "s3cret-value" not in client.logs(place.name).decode()


async def test_inside_it_is_an_ordinary_user_without_any_privilege(place: Place) -> None:
    runtime = await place.start()
    assert out(runtime, "id -u; id -g; id -G; pwd; echo $HOME; hostname").split() == [
        *("1000", "1000", "1000"),
        *(WORKSPACE, "/home/sandbox", "sandbox"),
    ]
    status = dict(
        line.split(":\t") for line in out(runtime, "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status").splitlines()
    )
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


async def test_inside_there_is_no_network_but_loopback_and_no_docker_socket(place: Place) -> None:
    runtime = await place.start()
    assert out(runtime, "ls /sys/class/net") == "lo"
    assert out(runtime, "find / -name 'docker*.sock' 2>/dev/null || true") == ""


async def test_inside_nothing_of_the_hand_off_can_be_changed_or_used_again(place: Place) -> None:
    runtime = await place.start()
    for attempt in ("touch /run/sandbox/x", "rm /run/sandbox/agent.pyz", "echo > /run/sandbox/agent.pyz"):
        assert out(runtime, f"{attempt} 2>/dev/null && echo done || echo refused") == "refused"
    assert out(runtime, "test -e /run/sandbox/handoff.sock && echo there || echo gone") == "gone"


async def test_the_agents_socket_lies_where_only_its_owner_comes(place: Place) -> None:
    runtime = await place.start()
    assert Path(runtime.socket).stat().st_mode & 0o777 == 0o600
    assert place.sockets.stat().st_mode & 0o777 == 0o700
    door = door_path(place.sockets, place.lifetime)
    assert door.stat().st_mode & 0o777 == 0o711
    assert [path.name for path in door.iterdir()] == ["agent.pyz"]


async def test_an_image_decides_neither_user_nor_command_nor_health_check(place: Place, image: Any) -> None:
    hostile = image(
        "USER root",
        'ENTRYPOINT ["sh", "-c", "sleep 1000"]',
        'CMD ["false"]',
        "HEALTHCHECK CMD touch /tmp/checked",
        "WORKDIR /",
        "EXPOSE 80",
    )
    runtime = await place.start(image=hostile)
    assert out(runtime, "id -u; pwd") == f"1000\n{WORKSPACE}"
    client = docker.APIClient(version="auto")
    found = client.inspect_container(place.name)
    client.close()
    assert found["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    assert found["Config"]["StopSignal"] == "SIGTERM"
    assert "Health" not in found["State"]


async def test_volumes_of_an_image_go_with_the_sandbox(place: Place, image: Any, client: docker.APIClient) -> None:
    await place.start(image=image("VOLUME /data"))
    anonymous = [m["Name"] for m in client.inspect_container(place.name)["Mounts"] if m["Destination"] == "/data"]
    await place.destroy()
    names = {found["Name"] for found in client.volumes()["Volumes"] or ()}
    assert not names & set(anonymous)


# --- limits --------------------------------------------------------------------------------------------------------


async def test_processes_are_limited(place: Place) -> None:
    runtime = await place.start()
    script = "import os\ntry:\n  for _ in range(200): os.fork() or os.read(0, 1)\nexcept OSError: print('limited')"
    assert "limited" in out(runtime, f'sleep 5 | timeout 3 python3 -c "{script}"; true')


async def test_limits_change_while_it_runs_and_while_it_is_frozen(place: Place, client: docker.APIClient) -> None:
    runtime = await place.start()
    await place.engine.set_limits(runtime, ResolvedLimits(cpus=0.5, memory=512 * MIB, pids=100))
    await place.engine.freeze(runtime)
    await place.engine.set_limits(runtime, ResolvedLimits(cpus=0.25, memory=128 * MIB, pids=99))
    host = client.inspect_container(place.name)["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (
        *(25 * 10**7, 128 * MIB),
        *(128 * MIB, 99),
    )
    await place.engine.thaw(runtime)


async def test_a_stopped_lifetime_starts_with_the_limits_of_now(place: Place, client: docker.APIClient) -> None:
    await place.engine.stop(await place.start(), 5)
    await place.start(limits=ResolvedLimits(cpus=0.5, memory=128 * MIB, pids=50))
    host = client.inspect_container(place.name)["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (5 * 10**8, 128 * MIB, 50)


async def test_more_cpus_than_the_machine_has_are_all_of_them(place: Place) -> None:
    config = configuration(place.spec(limits=ResolvedLimits(cpus=64)), "image", place.sockets, cpus=2)
    assert config["HostConfig"]["NanoCpus"] == 2 * 10**9


async def test_use_is_measured_running_and_frozen_and_not_after_the_end(place: Place) -> None:
    runtime = await place.start()
    out(runtime, "python3 -c 'sum(range(10**6))'")
    await place.engine.freeze(runtime)
    usage = await place.engine.usage(runtime)
    assert usage.cpu_seconds is not None
    assert usage.cpu_seconds > 0
    assert usage.memory is not None
    assert MIB < usage.memory < 256 * MIB
    assert usage.pids is not None
    assert usage.pids >= 2
    assert usage.oom_kills == 0
    await place.engine.stop(runtime, 5)
    usage = await place.engine.usage(runtime)
    assert set(dataclasses.asdict(usage).values()) == {None}


async def test_use_comes_from_the_daemon_where_the_kernels_files_cannot_be_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await place.start()
    monkeypatch.setattr("jupyter_sandbox.engines.docker.cgroup.usage", lambda pid: None)
    usage = await place.engine.usage(runtime)
    assert usage.memory
    assert usage.cpu_seconds
    assert usage.pids


async def test_isolation_names_what_is_not_enforced_and_why(place: Place, client: docker.APIClient) -> None:
    runtime = await place.start()
    assert runtime.isolation == isolation(client.info())
    missing = {one.name: one.reason for one in runtime.isolation if not one.enforced}
    assert {"disk", "kernel"} <= set(missing)
    assert all(missing.values())


def test_isolation_says_what_a_weak_daemon_lacks() -> None:
    weak = {one.name: one for one in isolation({"SecurityOptions": ["name=seccomp,profile=unconfined"]})}
    assert not any(weak[name].enforced for name in ("memory", "swap", "cpus", "pids", "system calls"))
