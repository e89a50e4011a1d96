"""The life of a container: start, freeze, thaw, stop, start again, end, destroy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

import docker
import pytest

from jupyter_sandbox.engines.docker import DockerEngine
from jupyter_sandbox.errors import SandboxError
from jupyter_sandbox.options import MIB, ResolvedLimits

from .conftest import STAND_IN, Place, ask, out, run_docker

pytestmark = pytest.mark.docker


async def test_a_start_tells_its_steps_and_returns_when_the_agent_answers(place: Place) -> None:
    steps: list[str] = []
    runtime = await place.engine.start(place.spec(), steps.append)
    assert steps == ["image", "container", "agent"]
    assert out(runtime, "echo hello") == "hello"
    assert await place.engine.is_alive(runtime)


async def test_what_is_handed_over_arrives_as_it_is(place: Place) -> None:
    spec = place.spec(env={"TOKEN": "s3cret-value"})
    runtime = await place.engine.start(spec, lambda step: None)
    assert ask(runtime, "settings") == dict(spec.handoff)


async def test_freeze_stops_every_process_and_keeps_it(place: Place) -> None:
    runtime = await place.start()
    out(runtime, "(while :; do echo x >> /tmp/ticks; sleep 0.01; done) >/dev/null 2>&1 & echo $! > /tmp/pid")
    await place.engine.freeze(runtime)
    used = (await place.engine.usage(runtime)).cpu_seconds
    assert (await place.engine.usage(runtime)).cpu_seconds == used
    assert await place.engine.is_alive(runtime)
    await place.engine.thaw(runtime)
    out(runtime, "kill -0 $(cat /tmp/pid)")


async def test_freeze_and_thaw_can_be_repeated_and_follow_what_others_did(place: Place) -> None:
    runtime = await place.start()
    await place.engine.freeze(runtime)
    await place.engine.freeze(runtime)
    assert run_docker("inspect", "-f", "{{.State.Status}}", place.name) == "paused"
    run_docker("unpause", place.name)
    await place.engine.thaw(runtime)
    assert out(runtime, "echo awake") == "awake"
    run_docker("pause", place.name)
    await place.engine.freeze(runtime)
    await place.engine.thaw(runtime)
    assert out(runtime, "echo awake") == "awake"


async def test_files_in_workspace_home_and_tmp_stay_over_a_stop_and_processes_do_not(place: Place) -> None:
    runtime = await place.start()
    out(runtime, "for d in /workspace ~ /tmp; do echo kept > $d/file; done; sleep 1000 >/dev/null 2>&1 &")
    await place.engine.stop(runtime, 5)
    assert not await place.engine.is_alive(runtime)
    assert not Path(runtime.socket).exists()
    await place.engine.stop(runtime, 5)
    again = await place.start()
    assert out(again, "cat /workspace/file ~/file /tmp/file") == "kept\nkept\nkept"
    assert out(again, "pgrep -c sleep || true") == "0"
    assert not await place.engine.is_alive(runtime)


async def test_a_frozen_runtime_can_be_stopped_and_destroyed(place: Place) -> None:
    runtime = await place.start()
    await place.engine.freeze(runtime)
    await place.engine.stop(runtime, 5)
    assert not await place.engine.is_alive(runtime)
    await place.engine.freeze(await place.start())
    await place.destroy()
    assert await place.engine.find(place.installation) == set()


async def test_who_ignores_sigterm_is_killed_after_the_grace(place: Place) -> None:
    runtime = await place.start(env={"BEHAVE": "stubborn"})
    waiting = asyncio.create_task(place.engine.wait(runtime))
    await place.engine.stop(runtime, 0.5)
    assert (await waiting).reason == "killed"


async def test_every_start_brings_the_agent_of_the_host(place: Place, root: Path) -> None:
    agent = root / "agent.py"
    shutil.copy(STAND_IN, agent)
    engine = DockerEngine(agent)
    runtime = await engine.start(place.spec(), lambda step: None)
    await engine.stop(runtime, 5)
    agent.write_text(agent.read_text() + "# renewed\n")
    again = await engine.start(place.spec(), lambda step: None)
    assert out(again, "tail -1 /run/sandbox/agent.pyz") == "# renewed"
    await engine.close()


async def test_a_stopped_lifetime_starts_although_its_sockets_are_gone_as_after_a_reboot(place: Place) -> None:
    await place.engine.stop(await place.start(), 5)
    shutil.rmtree(place.sockets)
    assert out(await place.start(), "echo back") == "back"


async def test_a_container_that_nobody_recorded_is_ended_and_started_anew(place: Place) -> None:
    lost = await place.start()
    out(lost, "echo kept > ~/file")
    found = await place.start()
    assert out(found, "cat ~/file") == "kept"
    assert not await place.engine.is_alive(lost)


async def test_lifetimes_start_at_the_same_time(engine: DockerEngine, installation: str, root: Path) -> None:
    places = [Place(engine, root, installation) for _ in range(4)]
    runtimes = await asyncio.gather(*(place.start() for place in places))
    for place, runtime in zip(places, runtimes, strict=True):
        out(runtime, f"echo {place.lifetime} > /workspace/mine")
    assert [out(runtime, "cat /workspace/mine") for runtime in runtimes] == [place.lifetime for place in places]
    assert await engine.find(installation) == {place.lifetime for place in places}
    await asyncio.gather(*(place.destroy() for place in places))
    assert await engine.find(installation) == set()


# --- how it ends ---------------------------------------------------------------------------------------------------


async def test_the_end_of_the_agent_is_the_end_of_the_runtime(place: Place) -> None:
    runtime = await place.start()
    waiting = asyncio.create_task(place.engine.wait(runtime))
    with contextlib.suppress(ValueError, OSError):
        ask(runtime, "exit")
    ending = await waiting
    assert (ending.reason, ending.text) == ("exited", "its agent ended with exit code 7")


async def test_an_end_for_want_of_memory_is_told(place: Place) -> None:
    runtime = await place.start(limits=ResolvedLimits(cpus=1, memory=64 * MIB, pids=64))
    waiting = asyncio.create_task(place.engine.wait(runtime))
    with contextlib.suppress(ValueError, OSError):
        ask(runtime, "eat")
    assert (await waiting).reason == "out_of_memory"


async def test_a_container_killed_or_removed_by_others_is_told(place: Place) -> None:
    runtime = await place.start()
    waiting = asyncio.create_task(place.engine.wait(runtime))
    run_docker("kill", place.name)
    assert (await waiting).reason == "killed"
    runtime = await place.start()
    waiting = asyncio.create_task(place.engine.wait(runtime))
    run_docker("rm", "-f", place.name)
    assert (await waiting).reason in ("removed", "killed")
    assert not await place.engine.is_alive(runtime)
    assert (await place.engine.wait(runtime)).reason == "removed"


async def test_waiting_can_be_given_up(place: Place) -> None:
    runtime = await place.start()
    waiting = asyncio.create_task(place.engine.wait(runtime))
    await place.engine.freeze(runtime)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await place.engine.thaw(runtime)


async def test_waiting_works_where_the_process_cannot_be_seen(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(pid: int) -> int:
        raise ProcessLookupError

    runtime = await place.start()
    monkeypatch.setattr(os, "pidfd_open", hidden)
    waiting = asyncio.create_task(place.engine.wait(runtime))
    await place.engine.stop(runtime, 5)
    assert (await waiting).reason == "exited"


async def test_a_runtime_restarted_by_others_is_not_the_same(place: Place) -> None:
    runtime = await place.start()
    run_docker("restart", "-t", "0", place.name)
    assert not await place.engine.is_alive(runtime)
    assert (await place.engine.wait(runtime)).reason == "unknown"


async def test_a_handle_of_another_boot_is_not_alive(place: Place) -> None:
    runtime = await place.start()
    runtime.handle["boot"] = "another"  # type: ignore[index]
    assert not await place.engine.is_alive(runtime)


async def test_what_ended_cannot_be_frozen(place: Place) -> None:
    runtime = await place.start()
    await place.engine.stop(runtime, 5)
    for act in (place.engine.freeze, place.engine.thaw):
        with pytest.raises(SandboxError) as caught:
            await act(runtime)
        assert caught.value.code == "AGENT_UNREACHABLE"
    await place.destroy()
    with pytest.raises(SandboxError) as caught:
        await place.engine.freeze(runtime)
    assert caught.value.code == "AGENT_UNREACHABLE"


# --- destroy -------------------------------------------------------------------------------------------------------


async def test_destroy_leaves_nothing_and_can_be_repeated(place: Place, client: docker.APIClient) -> None:
    await place.start()
    await place.destroy()
    assert await place.engine.find(place.installation) == set()
    assert list(place.sockets.iterdir()) == []
    assert not place.directory.exists()
    await place.destroy()


@pytest.mark.parametrize("gone", ["container", "volume", "sockets", "directory"])
async def test_destroy_finishes_what_is_half_gone(place: Place, gone: str) -> None:
    runtime = await place.start()
    await place.engine.stop(runtime, 5)
    if gone == "sockets":
        shutil.rmtree(place.sockets / place.lifetime[:12])
    elif gone == "directory":
        shutil.rmtree(place.directory)
    else:
        run_docker("rm", "-f", place.name)
        shutil.rmtree(place.sockets / place.lifetime[:12])
        if gone == "volume":
            run_docker("volume", "rm", place.name)
    assert await place.engine.find(place.installation) == (set() if gone == "volume" else {place.lifetime})
    await place.destroy()
    assert await place.engine.find(place.installation) == set()


async def test_only_objects_of_the_installation_are_found(place: Place) -> None:
    await place.start()
    assert await place.engine.find("0" * 32) == set()
