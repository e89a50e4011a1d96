"""Starts that fail say why, and leave nothing behind; engines that are not there are named."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import docker
import pytest

from jupyter_sandbox.engines.docker import DockerEngine
from jupyter_sandbox.engines.docker.daemon import Daemon, configured_host
from jupyter_sandbox.engines.docker.door import Door, came_from
from jupyter_sandbox.errors import SandboxError

from .conftest import STAND_IN, Place, out, run_docker

pytestmark = pytest.mark.docker


async def fails(place: Place, **changes: Any) -> SandboxError:
    """The error of a start that fails and leaves nothing of a new lifetime."""
    with pytest.raises(SandboxError) as caught:
        await place.start(**changes)
    await nothing_is_left(place)
    return caught.value


async def nothing_is_left(place: Place) -> None:
    assert await place.engine.find(place.installation) == set()
    assert list(place.sockets.iterdir()) == []


async def test_an_agent_that_dies_says_its_last_line(place: Place) -> None:
    found = await fails(place, env={"BEHAVE": "die"})
    assert found.code == "START_FAILED"
    assert "the stand-in dies as told" in found.message


async def test_an_agent_that_refuses_is_quoted(place: Place) -> None:
    found = await fails(place, env={"BEHAVE": "refuse"})
    assert (found.code, found.message) == ("IMAGE_NOT_USABLE", "It has no ipykernel.")


async def test_an_agent_that_is_silent_is_given_up_in_time(place: Place) -> None:
    found = await fails(place, env={"BEHAVE": "silent"}, timeout=2.0)
    assert found.code == "START_TIMEOUT"
    assert "2 seconds" in found.message


async def test_a_start_that_is_cancelled_leaves_nothing(place: Place) -> None:
    for step in ("image", "container", "agent"):
        reached = asyncio.Event()
        starting = asyncio.create_task(
            place.engine.start(
                place.spec(env={"BEHAVE": "silent"}),
                lambda now, step=step, reached=reached: now == step and reached.set(),
            )
        )
        await reached.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await nothing_is_left(place)


async def test_a_failed_start_of_a_kept_lifetime_keeps_its_files(place: Place) -> None:
    runtime = await place.start()
    out(runtime, "echo kept | tee /workspace/file > ~/file")
    await place.engine.stop(runtime, 5)
    with pytest.raises(SandboxError):
        await place.start(env={"BEHAVE": "die"})
    assert run_docker("inspect", "-f", "{{.State.Running}}", place.name) == "false"
    assert out(await place.start(), "cat /workspace/file ~/file") == "kept\nkept"


async def test_a_container_of_other_records_is_neither_taken_nor_touched(place: Place) -> None:
    runtime = await place.start()
    with pytest.raises(SandboxError) as caught:
        await place.start(installation="0" * 32)
    assert caught.value.code == "START_FAILED"
    assert out(runtime, "echo undisturbed") == "undisturbed"


# --- images --------------------------------------------------------------------------------------------------------


async def test_a_missing_image_names_the_command_that_makes_it(engine: DockerEngine, place: Place) -> None:
    found = await fails(place, image="jsb-test-no-such:1")
    assert found.code == "IMAGE_MISSING"
    assert "jsb-test-no-such:1" in found.message
    assert "jupyter sandbox build" in found.remedy


async def test_a_name_that_is_none_is_a_missing_image(place: Place) -> None:
    found = await fails(place, image="Not:an:Image")
    assert found.code == "IMAGE_MISSING"


async def test_an_image_without_ipykernel_says_so(place: Place, bare_image: str) -> None:
    found = await fails(place, image=bare_image)
    assert found.code == "IMAGE_NOT_USABLE"
    for lack in ("no ipykernel", "cannot write /home/sandbox", "cannot write /workspace"):
        assert lack in found.message


async def test_an_image_without_python_says_so(place: Place, image: Any) -> None:
    # With the label of our own images it is not tried first, and the start itself has to find out.
    for label in ('LABEL org.jupyter.sandbox.version="1"', 'ENV OTHER="1"'):
        name = image("ENV PATH=/nowhere", label)
        found = await fails(place, image=name)
        assert found.code == "IMAGE_NOT_USABLE"
        assert "python3" in found.message


@pytest.fixture
def bare_image(client: docker.APIClient) -> str:
    """The Debian that the test image is built on: python3, and nothing else."""
    tags = [tag for found in client.images("jsb-test-base") for tag in found["RepoTags"] or ()]
    if not tags:
        pytest.skip("the base of the test image is not there; tests/image/make.py makes it")
    return tags[0]


# --- daemons -------------------------------------------------------------------------------------------------------


async def refused(host: str, place: Place) -> SandboxError:
    engine = DockerEngine(STAND_IN, host=host)
    probe = await engine.probe()
    assert not probe.available
    with pytest.raises(SandboxError) as caught:
        await engine.start(place.spec(), lambda step: None)
    await engine.close()
    assert probe.reason == caught.value.message
    return caught.value


async def test_a_daemon_that_is_down_is_named(place: Place, root: Path) -> None:
    found = await refused(f"unix://{root}/none.sock", place)
    assert found.code == "ENGINE_UNAVAILABLE"
    assert f"{root}/none.sock" in found.message
    assert "DOCKER_HOST" in found.remedy


@pytest.mark.parametrize("host", ["tcp://192.0.2.1:2375", "ssh://somebody@192.0.2.1"])
async def test_a_remote_daemon_is_refused_by_name(place: Place, host: str) -> None:
    found = await refused(host, place)
    assert found.code == "NOT_AVAILABLE_YET"
    assert host in found.message


@pytest.mark.parametrize(
    ("info", "named"),
    [
        ({"OSType": "linux", "OperatingSystem": "Docker Desktop", "KernelVersion": os.uname().release}, "Desktop"),
        ({"OSType": "linux", "OperatingSystem": "Other", "KernelVersion": "6.0-other"}, "6.0-other"),
        ({"OSType": "windows", "OperatingSystem": "Other", "KernelVersion": "10.0"}, "10.0"),
    ],
)
async def test_a_daemon_on_another_kernel_is_refused_by_name(
    place: Place, monkeypatch: pytest.MonkeyPatch, info: dict[str, str], named: str
) -> None:
    monkeypatch.setattr(docker.APIClient, "info", lambda self: info)
    found = await fails(place)
    assert found.code == "NOT_AVAILABLE_YET"
    assert named in found.message


async def test_a_daemon_that_dies_half_way_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(self: docker.APIClient, container: str) -> None:
        raise docker.errors.DockerException("Connection aborted")

    with monkeypatch.context() as patched:
        patched.setattr(docker.APIClient, "start", dies)
        found = await fails(place)
    assert found.code == "ENGINE_UNAVAILABLE"


def test_the_daemon_is_looked_for_where_the_docker_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")
    assert configured_host() == "unix:///elsewhere.sock"
    monkeypatch.delenv("DOCKER_HOST")
    assert configured_host().startswith("unix:///")


async def test_a_cancelled_call_is_waited_for() -> None:
    daemon, seen, go = Daemon(), [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(client: docker.APIClient) -> None:
        loop.call_soon_threadsafe(go.set)
        client.ping()
        seen.append("done")

    calling = asyncio.create_task(daemon.call(slow))
    await go.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert seen == ["done"]
    daemon.close()


async def test_a_probe_says_that_it_works_and_what_it_isolates(engine: DockerEngine) -> None:
    probe = await engine.probe()
    assert probe.available
    assert probe.isolation
    assert probe.facts["image"]


async def test_a_probe_without_the_image_names_the_command_that_makes_it() -> None:
    engine = DockerEngine(STAND_IN, default_image="jsb-test-no-such:1")
    probe = await engine.probe()
    await engine.close()
    assert not probe.available
    assert "jupyter sandbox build" in probe.remedy


# --- the door ------------------------------------------------------------------------------------------------------


async def test_the_door_takes_one_connection_and_is_gone(root: Path) -> None:
    door = Door(root / "s" / "one")
    door.open(STAND_IN)
    accepting = asyncio.create_task(door.accept())
    path = str(door.path / "handoff.sock")
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        with await accepting:
            assert not Path(path).exists()
    door.remove()
    assert list((root / "s").iterdir()) == []


async def test_a_process_of_the_host_is_told_from_the_containers(root: Path) -> None:
    door = Door(root / "s" / "one")
    door.open(STAND_IN)
    accepting = asyncio.create_task(door.accept())
    with socket.socket(socket.AF_UNIX) as stranger, contextlib.ExitStack() as stack:
        stranger.connect(str(door.path / "handoff.sock"))
        assert not came_from(stack.enter_context(await accepting), "a" * 64)
    door.remove()


def test_a_door_in_a_directory_of_somebody_else_is_refused(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a directory away")
    (root / "foreign").mkdir()
    os.chown(root / "foreign", 65534, 65534)
    with pytest.raises(SandboxError):
        Door(root / "foreign" / "one").open(STAND_IN)
