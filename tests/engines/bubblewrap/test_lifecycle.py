"""Start, freeze, thaw, stop, destroy, and finding what runs after the manager was killed."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_sandbox.engines import agent_zip, processes
from jupyter_sandbox.engines.base import Runtime
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.errors import Denied, SandboxError
from jupyter_sandbox.models import Protection
from jupyter_sandbox.options import ResolvedLimits

from .conftest import HERE, Place, run

pytestmark = pytest.mark.bubblewrap

MANY = "for n in range(100): subprocess.Popen(['sleep', '60'])"
CHILD = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'], start_new_session=True)\nprint(child.pid)"


def states(runtime: Runtime) -> dict[str, str]:
    """The state of every process of a sandbox, by its command."""
    found = {}
    for one in processes.tree(runtime.handle["init"]["pid"]):
        found[Path(f"/proc/{one.pid}/comm").read_text().strip()] = one.state
    return found


async def test_files_outlive_a_stop(place: Place) -> None:
    runtime = await place.start()
    await run(runtime, "for top in ('/workspace', '/home/sandbox', '/tmp'): open(top + '/kept', 'w').write('x')")
    await place.engine.stop(runtime, 5)
    again = await place.start(runtime.lifetime)
    assert await run(
        again, "print(*(os.path.exists(t + '/kept') for t in ('/workspace', '/home/sandbox', '/tmp')))"
    ) == ("True True True")


async def test_it_starts_the_real_agent(place: Place) -> None:
    engine = BubblewrapEngine(agent_zip.build(place.root))
    runtime = await engine.start(place.spec(), lambda step: None)
    reader, writer = await asyncio.open_unix_connection(runtime.socket)
    writer.write(b"GET /status HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert runtime.runtime in answer.decode()
    await engine.stop(runtime, 10)
    await engine.close()


async def test_the_steps_of_a_start_are_told(place: Place) -> None:
    steps: list[str] = []
    await place.engine.start(place.spec(), steps.append)
    assert steps == ["container", "agent"]


@pytest.mark.usefixtures("any_cgroups")
async def test_a_freeze_stops_every_process_and_a_thaw_continues_them(place: Place) -> None:
    runtime = await place.start()
    count = "import threading, time\nn = 0\ndef go():\n    global n\n    while True: n += 1; time.sleep(0.001)\n"
    await run(runtime, count + "threading.Thread(target=go, daemon=True).start()")
    await run(runtime, CHILD)
    await place.engine.freeze(runtime)
    await place.engine.freeze(runtime)
    assert not set(states(runtime).values()) & {"R", "S"} or await frozen_by_cgroup(runtime)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(runtime, "print(n)"), 0.3)
    await place.engine.thaw(runtime)
    await place.engine.thaw(runtime)
    first = int(await run(runtime, "print(n)"))
    await run(runtime, "last = n\nwhile n == last: time.sleep(0.01)")
    assert int(await run(runtime, "print(n)")) > first


async def frozen_by_cgroup(runtime: Runtime) -> bool:
    """Whether the freezer says so."""
    path = runtime.handle["cgroups"].get("freezer")
    return path is not None and "FROZEN" in (Path(path) / "freezer.state").read_text()


@pytest.mark.usefixtures("without_cgroups")
async def test_what_was_stopped_before_stays_stopped_also_when_the_manager_was_killed_meanwhile(place: Place) -> None:
    runtime = await place.start()
    await run(runtime, CHILD)
    await run(runtime, "child.send_signal(19); os.waitpid(child.pid, os.WUNTRACED)")
    await place.engine.freeze(runtime)
    another_manager = BubblewrapEngine(HERE / "stand_in_agent.py")
    await another_manager.freeze(runtime)
    await another_manager.thaw(runtime)
    stopped = "print([open(f'/proc/{pid}/stat').read().split()[2] == 'T' for pid in (child.pid, os.getpid())])"
    assert await run(runtime, stopped) == "[True, False]"
    assert not (place.directory(runtime.lifetime) / "frozen.json").exists()


FORKS = """
import os, time
while True:
    if os.fork() == 0:
        time.sleep(0.05)
        os._exit(0)
    try:
        while os.waitpid(-1, 1)[0]:
            pass
    except OSError:
        pass
    time.sleep(0.002)
"""


@pytest.mark.usefixtures("without_cgroups")
async def test_what_forks_all_the_time_can_be_frozen_with_signals(place: Place) -> None:
    runtime = await place.start()
    await run(runtime, f"import subprocess\nfor _ in range(3): subprocess.Popen([sys.executable, '-c', {FORKS!r}])")
    await place.engine.freeze(runtime)
    before = {one.pid for one in processes.tree(runtime.handle["init"]["pid"])}
    await asyncio.sleep(0.1)
    assert {one.pid for one in processes.tree(runtime.handle["init"]["pid"])} == before
    assert set(states(runtime).values()) <= {"T", "Z"}


@pytest.mark.usefixtures("any_cgroups")
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
@pytest.mark.parametrize("grace", [0, 5])
async def test_a_stop_ends_everything_whoever_its_parent_is(place: Place, frozen: bool, grace: float) -> None:
    runtime = await place.start()
    await run(runtime, "import signal; " + CHILD)
    tree = {one.pid for one in processes.tree(runtime.handle["monitor"]["pid"])}
    if frozen:
        await place.engine.freeze(runtime)
    ending = asyncio.create_task(place.engine.wait(runtime))
    await place.engine.stop(runtime, grace)
    assert not await place.engine.is_alive(runtime)
    assert (await ending).reason == ("killed" if grace == 0 else "exited")
    assert [pid for pid in tree if (one := processes.stat(pid)) and one.state != "Z"] == []
    assert place.left() == []
    await place.engine.stop(runtime, grace)


async def test_an_agent_that_ignores_the_request_to_end_is_killed_in_time(place: Place) -> None:
    runtime = await place.start()
    os.kill(runtime.handle["init"]["pid"], signal.SIGSTOP)
    await place.engine.stop(runtime, 0.2)
    assert not await place.engine.is_alive(runtime)


async def test_an_agent_that_ends_by_itself_ends_the_runtime_and_the_code_is_told(place: Place) -> None:
    runtime = await place.start()
    ending = asyncio.create_task(place.engine.wait(runtime))
    await run(runtime, CHILD)
    with pytest.raises(http.client.RemoteDisconnected):
        await run(runtime, "os._exit(7)")
    assert (await ending).text == "its agent ended with exit code 7"
    assert not await place.engine.is_alive(runtime)


async def test_it_survives_a_sigkill_of_the_manager_and_is_adopted_by_the_next(place: Place) -> None:
    spec = place.spec()
    script = (
        "import asyncio, dataclasses, json\nfrom pathlib import Path, PosixPath\n"
        "from jupyter_sandbox.engines.base import Interpreter, StartSpec\n"
        "from jupyter_sandbox.options import ResolvedLimits\n"
        "from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine\n"
        f"spec = {spec!r}\nengine = BubblewrapEngine(Path({str(HERE / 'stand_in_agent.py')!r}))\n"
        "async def main():\n"
        "    runtime = await engine.start(spec, lambda step: None)\n"
        "    print(json.dumps(dataclasses.asdict(runtime)), flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    manager = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert manager.stdout is not None
    told = json.loads(await manager.stdout.readline())
    manager.send_signal(signal.SIGKILL)
    await manager.wait()
    manager._transport.close()  # type: ignore[attr-defined]
    runtime = Runtime(**{**told, "isolation": tuple(Protection(**one) for one in told["isolation"])})
    assert await run(runtime, "print(6 * 7)") == "42"
    assert await place.engine.is_alive(runtime)
    assert await place.engine.find(place.installation) == {spec.lifetime}
    await place.engine.freeze(runtime)
    await place.engine.thaw(runtime)
    ending = asyncio.create_task(place.engine.wait(runtime))
    await place.engine.stop(runtime, 5)
    assert (await ending).reason == "unknown"


async def test_another_process_with_the_same_number_is_not_taken_for_it(place: Place) -> None:
    runtime = await place.start()
    for change in ({"started": 1}, {"boot": "another"}, {"pid": os.getpid()}):
        handle = {**runtime.handle, "init": {**runtime.handle["init"], **change}}
        assert not await place.engine.is_alive(dataclasses.replace(runtime, handle=handle))


async def test_only_what_is_of_the_installation_is_found(place: Place) -> None:
    mine = await place.start()
    await place.start(installation="another")
    assert await place.engine.find(place.installation) == {mine.lifetime}
    assert await place.engine.find("nobody") == set()


async def test_a_process_inside_cannot_pass_for_another_sandbox(place: Place) -> None:
    runtime = await place.start()
    mark = f"jsb-{place.installation}-{'f' * 32}"
    await run(runtime, f"import subprocess\nsubprocess.Popen([sys.executable, '-X', {mark!r}, '-c', 'input()'])")
    assert await place.engine.find(place.installation) == {runtime.lifetime}


async def test_destroy_removes_processes_and_files_running_or_not_and_twice(place: Place) -> None:
    runtime = await place.start()
    await run(runtime, "open('/workspace/file', 'w').close()")
    for _ in range(2):
        await place.engine.destroy(runtime.lifetime, place.directory(runtime.lifetime))
        assert not await place.engine.is_alive(runtime)
        assert not place.directory(runtime.lifetime).exists()
    await place.engine.stop(runtime, 1)
    assert place.left() == []


@pytest.mark.root
async def test_a_sandbox_that_hides_its_marker_is_destroyed_all_the_same(place: Place) -> None:
    runtime = await place.start()
    wipe = "import ctypes\nlibc = ctypes.CDLL(None)\nstart = int(open('/proc/self/stat').read().split()[47])\n"
    await run(runtime, wipe + "ctypes.memset(start, 120, 200)")
    monitor = processes.ProcessId.from_json(runtime.handle["monitor"])
    monitor.signal(signal.SIGKILL)
    await monitor.ended()
    assert await place.engine.find(place.installation) == set()
    await place.engine.destroy(runtime.lifetime, place.directory(runtime.lifetime))
    assert not await place.engine.is_alive(runtime)


async def test_destroy_works_on_the_worst_tree_and_follows_no_link(place: Place) -> None:
    outside = place.root / "outside"
    outside.mkdir(mode=0o777)
    (outside / "precious").write_text("x")
    runtime = await place.start()
    assert "Traceback" not in await run(
        runtime,
        f"os.symlink({str(outside)!r}, '/workspace/link'); os.symlink('/', '/workspace/root')\n"
        "os.mkfifo('/workspace/pipe'); s = socket.socket(socket.AF_UNIX); s.bind('/workspace/socket')\n"
        "os.makedirs('/workspace/closed/in'); open('/workspace/closed/in/f', 'w').close()\n"
        "os.chmod('/workspace/closed/in', 0); os.chmod('/workspace/closed', 0)\n"
        "os.makedirs('/home/sandbox/.delete-x'); open(b'/tmp/\\xff\\n', 'w').close()\n"
        "for _ in range(3000): os.mkdir('deep' * 20); os.chdir('deep' * 20)\n",
    )
    await place.engine.destroy(runtime.lifetime, place.directory(runtime.lifetime))
    assert not place.directory(runtime.lifetime).exists()
    assert (outside / "precious").read_text() == "x"


@pytest.mark.root
async def test_memory_of_the_whole_sandbox_is_limited_and_the_ending_says_so(place: Place) -> None:
    runtime = await place.start(limits=ResolvedLimits(memory=128 * 2**20))
    ending = asyncio.create_task(place.engine.wait(runtime))
    with pytest.raises(http.client.RemoteDisconnected):
        await run(runtime, "x = b'x' * (256 * 2**20)")
    assert (await ending).reason == "out_of_memory"


@pytest.mark.root
async def test_the_number_of_processes_is_limited(place: Place) -> None:
    runtime = await place.start(limits=ResolvedLimits(pids=32))
    said = await run(runtime, f"import subprocess\ntry:\n    {MANY}\nexcept OSError: print(n)")
    assert 20 <= int(said) < 32


@pytest.mark.root
async def test_limits_change_at_once_and_not_below_what_is_used(place: Place) -> None:
    runtime = await place.start()
    await run(runtime, "x = b'x' * (100 * 2**20)")
    await place.engine.set_limits(runtime, ResolvedLimits(memory=2**30, pids=20, cpus=0.5))
    assert "BlockingIOError" in await run(runtime, f"import subprocess\n{MANY}")
    await place.engine.set_limits(runtime, ResolvedLimits(memory=3 * 2**30))
    with pytest.raises(Denied):
        await place.engine.set_limits(runtime, ResolvedLimits(memory=64 * 2**20))
    assert await run(runtime, "print(len(x))") == str(100 * 2**20)


@pytest.mark.usefixtures("without_cgroups")
async def test_without_control_groups_the_agent_gets_the_limits_and_the_status_says_what_is_missing(
    place: Place,
) -> None:
    runtime = await place.start()
    assert await run(runtime, "print(given['memory'], given['pids'])") == f"{2 * 2**30} 512"
    reasons = {one.name: one.reason for one in runtime.isolation if not one.enforced}
    assert reasons["memory"] == "per process only: no writable control group"
    assert set(reasons) == {"memory", "swap", "pids", "disk", "kernel"}


@pytest.mark.usefixtures("without_cgroups")
async def test_without_control_groups_a_sandbox_stays_on_its_cpus(place: Place) -> None:
    runtime = await place.start(limits=ResolvedLimits(cpus=1))
    assert await run(runtime, "print(len(os.sched_getaffinity(0)))") == "1"
    assert "PermissionError" in await run(runtime, "os.sched_setaffinity(0, range(os.cpu_count()))")
    await place.engine.set_limits(runtime, ResolvedLimits(cpus=len(os.sched_getaffinity(0))))
    assert await run(runtime, "print(len(os.sched_getaffinity(0)))") == str(len(os.sched_getaffinity(0)))


@pytest.mark.usefixtures("any_cgroups")
async def test_usage_is_measured_from_outside_also_when_frozen(place: Place) -> None:
    runtime = await place.start()
    await run(
        runtime,
        "x = b'x' * (50 * 2**20)\nwhile time.process_time() < 0.3: pass"
        if False
        else "import time\nx = b'x' * (50 * 2**20)\nwhile time.process_time() < 0.3: pass",
    )
    await place.engine.freeze(runtime)
    usage = await place.engine.usage(runtime)
    assert (usage.memory or 0) > 50 * 2**20
    assert (usage.cpu_seconds or 0) >= 0.2
    assert (usage.pids or 0) >= 1


async def test_the_internet_is_refused_by_name(place: Place) -> None:
    with pytest.raises(SandboxError) as caught:
        await place.start(network="internet")
    assert caught.value.code == "NETWORK_UNAVAILABLE"


async def test_a_frozen_or_ended_sandbox_that_is_gone_says_so(place: Place) -> None:
    runtime = await place.start()
    await place.engine.stop(runtime, 1)
    with pytest.raises(SandboxError) as caught:
        await place.engine.thaw(runtime)
    assert caught.value.code == "AGENT_UNREACHABLE"


async def test_the_probe_runs_a_real_sandbox_and_says_what_is_enforced(place: Place) -> None:
    probe = await place.engine.probe()
    assert (probe.available, probe.reason) == (True, "")
    assert {one.name: one.enforced for one in probe.isolation}["system calls"]
    assert probe.facts["freeze"] in ("cgroup", "signals")
