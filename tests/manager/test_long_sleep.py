"""What follows a sleep: stopped after ``stop_after`` or for want of memory, put off by ``extend``, told afterwards."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from manager_parts import InProcess, ManagerProcess, serving
from stand_in_engines import EngineOfPlainProcesses

from jupyter_sandbox.errors import error
from jupyter_sandbox.manager import memory_pressure
from jupyter_sandbox.manager.memory_pressure import MemoryPressure, available_memory

Eventually = Callable[..., Any]


class EngineThatFailsToStop(EngineOfPlainProcesses):
    """Its daemon does not answer when something is to be stopped, until ``down`` is False."""

    down = True

    async def stop(self, runtime: Any, grace: float) -> None:
        if self.down:
            self.calls.append("stop")
            raise error("ENGINE_UNAVAILABLE")
        await super().stop(runtime, grace)


async def _asleep(manager: InProcess, *ids: str, **options: object) -> None:
    for sandbox_id in ids:
        await manager.caller.put(sandbox_id, **options)
        await manager.caller.ask("POST", f"{sandbox_id}/sleep", {})


async def _sandbox(manager: InProcess, sandbox_id: str) -> dict[str, Any]:
    return dict((await manager.caller.ask("GET", sandbox_id))[1]["sandbox"])


async def test_asleep_for_stop_after_it_is_stopped_and_the_next_work_finds_its_files(
    manager: InProcess, eventually: Eventually
) -> None:
    await _asleep(manager, "a", stop_after=0.1)
    await eventually(lambda: manager.actor("a").state == "stopped")
    sandbox = await _sandbox(manager, "a")
    assert (sandbox["state"], sandbox["runtime"]) == ("stopped", None)
    assert "asleep for longer than stop_after" in sandbox["previous_end"]
    assert (await manager.caller.exec("a", "echo x"))[1][0]["data"] == "x"
    assert (manager.actor("a").lifetime.directory / "file").read_text() == "kept"
    assert manager.engine.calls == ["start", "freeze", "stop", "start"]


async def test_looking_does_not_keep_it_from_being_stopped_and_waking_does(
    manager: InProcess, eventually: Eventually
) -> None:
    await _asleep(manager, "a", "b", stop_after=0.3)
    await manager.caller.exec("b", "echo")

    async def looked_at_and_stopped() -> bool:
        return (await _sandbox(manager, "a"))["state"] == "stopped"

    await eventually(looked_at_and_stopped)
    assert manager.actor("b").state == "running"
    assert manager.actor("b").rest._timer is None


async def test_stop_after_given_to_a_sleeping_one_applies_at_once(manager: InProcess, eventually: Eventually) -> None:
    await _asleep(manager, "a")
    await manager.caller.ask("PUT", "a", {"options": {"stop_after": 0.05}, "start": False})
    await eventually(lambda: manager.actor("a").state == "stopped")


async def test_keep_alive_outlasts_stop_after_even_if_somebody_put_it_to_sleep(
    manager: InProcess, eventually: Eventually
) -> None:
    await _asleep(manager, "a", stop_after=0.05, keep_alive=True)
    assert manager.actor("a").state == "sleeping"
    assert manager.actor("a").rest._timer is None
    await manager.caller.ask("PUT", "a", {"options": {"keep_alive": False}, "start": False})
    await eventually(lambda: manager.actor("a").state == "stopped")


async def test_a_stop_that_failed_leaves_it_asleep_with_all_its_state(place: Path, eventually: Eventually) -> None:
    async with serving(place, engine := EngineThatFailsToStop()) as manager:
        await _asleep(manager, "a", stop_after=0.05)
        await eventually(lambda: "stop" in engine.calls)
        await eventually(lambda: manager.actor("a").rest.since is not None)
        assert manager.actor("a").state == "sleeping"
        runtime = manager.actor("a").record.runtime_id
        engine.down = False
        await manager.caller.exec("a", "echo x")
        assert (await _sandbox(manager, "a"))["runtime"] == runtime


async def test_the_computers_clock_moved_by_an_hour_changes_nothing(
    manager: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    await manager.caller.put("awake", sleep_after=1800)
    await _asleep(manager, "asleep", stop_after=1800)
    now = time.time()
    for moved in (now + 3600, now - 7200):
        monkeypatch.setattr(time, "time", lambda moved=moved: moved)
        await manager.caller.agent_status("awake")
        assert (manager.actor("awake").state, manager.actor("asleep").state) == ("running", "sleeping")
    clock = asyncio.get_running_loop().time()
    assert manager.actor("asleep").rest._timer.when() <= clock + 1800
    assert manager.actor("awake").activity._timer.when() <= clock + 1800


# --- memory ----------------------------------------------------------------------------------------------------


class MachineWithRoomFor:
    """A machine that has room for so many sandboxes in memory, of one byte each, and one to spare."""

    def __init__(self, places: int, engine: EngineOfPlainProcesses) -> None:
        self.places = places
        self.engine = engine
        self.pressure = MemoryPressure(1, self.available)

    def available(self) -> int:
        return self.places - self.engine.calls.count("start") + self.engine.calls.count("stop")


async def _crowded(place: Path, places: int) -> Any:
    engine = EngineOfPlainProcesses()
    return serving(place, engine, memory=MachineWithRoomFor(places, engine).pressure)


async def test_where_memory_is_short_the_longest_asleep_is_stopped_before_another_starts(place: Path) -> None:
    async with await _crowded(place, 3) as manager:
        await _asleep(manager, "b", "a", "c")
        await manager.caller.put("d")
        states = {name: manager.actor(name).state for name in "abcd"}
        assert states == {"b": "stopped", "a": "sleeping", "c": "sleeping", "d": "running"}
        assert (await _sandbox(manager, "b"))["previous_end"] == memory_pressure.REASON
        assert manager.engine.calls[-2:] == ["stop", "start"]


async def test_waking_one_of_many_at_once_ends_without_anybody_waiting_for_another(place: Path) -> None:
    async with await _crowded(place, 2) as manager:
        names = [f"s{number}" for number in range(6)]
        for _ in range(3):
            answers = await asyncio.gather(*(manager.caller.put(name) for name in names))
            assert {status for status, _ in answers} == {200}
            await asyncio.gather(*(manager.caller.ask("POST", f"{name}/sleep", {}) for name in names))
        assert all(manager.actor(name).state in ("sleeping", "stopped") for name in names)


async def test_what_runs_and_what_is_kept_alive_is_never_stopped_for_want_of_memory(place: Path) -> None:
    async with await _crowded(place, 0) as manager:
        await manager.caller.put("runs")
        await _asleep(manager, "kept", keep_alive=True)
        await manager.caller.put("another")
        assert "stop" not in manager.engine.calls
        assert [manager.actor(name).state for name in ("runs", "kept", "another")] == ["running", "sleeping", "running"]


async def test_what_cannot_be_stopped_does_not_keep_another_from_starting(place: Path) -> None:
    engine = EngineThatFailsToStop()
    async with serving(place, engine, memory=MemoryPressure(1, lambda: 0)) as manager:
        await _asleep(manager, "a")
        assert (await manager.caller.put("b"))[0] == 200
        engine.down = False


def _machine(root: Path, *, available_kib: int, groups: dict[str, str], files: dict[str, str]) -> int | None:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: 9000 kB\nMemAvailable: {available_kib} kB\nHugePages: 0\n")
    lines = [f"{number}:{name}:{path}" for number, (name, path) in enumerate(groups.items())]
    (root / "proc" / "self" / "cgroup").write_text("\n".join(lines))
    for name, text in files.items():
        (root / "cg" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cg" / name).write_text(text)
    return available_memory(root / "proc", root / "cg")


def test_without_a_limit_what_the_machine_has_is_available(tmp_path: Path) -> None:
    files = {"a/memory.max": "max\n", "a/memory.current": "5\n"}
    assert _machine(tmp_path, available_kib=100, groups={"": "/a"}, files=files) == 102400


@pytest.mark.parametrize("parent", [True, False])
def test_a_limit_of_the_managers_control_group_or_one_above_it_counts(tmp_path: Path, parent: bool) -> None:
    at = "a" if parent else "a/b"
    files = {
        f"{at}/memory.max": "1000\n",
        f"{at}/memory.current": "900\n",
        f"{at}/memory.stat": "anon 5\ninactive_file 70\n",
    }
    assert _machine(tmp_path, available_kib=100, groups={"": "/a/b"}, files=files) == 170


def test_a_limit_of_a_control_group_of_the_first_version_counts(tmp_path: Path) -> None:
    files = {
        "memory/a/memory.limit_in_bytes": "1000\n",
        "memory/a/memory.usage_in_bytes": "900\n",
        "memory/a/memory.stat": "total_inactive_file 20\n",
    }
    assert _machine(tmp_path, available_kib=100, groups={"memory": "/a", "cpu": "/c"}, files=files) == 120


def test_where_nothing_can_be_read_nothing_is_stopped_on_a_guess(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path) is None
    assert available_memory() is not None


# --- extend ----------------------------------------------------------------------------------------------------


async def test_extend_puts_the_sleep_off_and_never_brings_it_nearer(manager: InProcess, eventually: Eventually) -> None:
    before = (await manager.caller.put("a", sleep_after=100))[1]["sandbox"]["sleeps_at"]
    deadline = manager.actor("a").activity._deadline()
    assert (await manager.caller.ask("POST", "a/extend", {"duration": "10s"}))[0] == 200
    assert manager.actor("a").activity._deadline() == deadline
    later = (await manager.caller.ask("POST", "a/extend", {"duration": 3600}))[1]["sandbox"]["sleeps_at"]
    assert later > before
    await manager.caller.put("a", sleep_after=0.05)
    await manager.caller.exec("a", "echo")
    activity = manager.actor("a").activity
    assert not activity.due
    assert activity._timer.when() == activity.extended_until


async def test_an_extension_that_is_over_lets_it_sleep(manager: InProcess, eventually: Eventually) -> None:
    await manager.caller.put("a", sleep_after=0.05)
    await manager.caller.ask("POST", "a/extend", {"duration": 0.3})
    await eventually(lambda: manager.actor("a").state == "sleeping")


async def test_an_extension_ends_with_the_sleep_that_somebody_asked_for(manager: InProcess) -> None:
    await manager.caller.put("a", sleep_after=50)
    await manager.caller.ask("POST", "a/extend", {"duration": "1h"})
    await manager.caller.ask("POST", "a/sleep", {})
    await manager.caller.exec("a", "echo")
    assert manager.actor("a").activity.extended_until is None
    assert manager.actor("a").record.extended_until is None


@pytest.mark.parametrize(
    ("duration", "code"), [("soon", "INVALID_DURATION"), (0, "INVALID_DURATION"), (None, "INVALID_DURATION")]
)
async def test_a_duration_that_is_none_is_named(manager: InProcess, duration: object, code: str) -> None:
    await manager.caller.put("a")
    assert (await manager.caller.ask("POST", "a/extend", {"duration": duration}))[1]["error"]["code"] == code


async def test_what_sleeps_cannot_be_extended_and_what_is_kept_alive_stays_so(manager: InProcess) -> None:
    await _asleep(manager, "a")
    status, body = await manager.caller.ask("POST", "a/extend", {"duration": "1h"})
    assert (status, body["error"]["code"]) == (409, "SANDBOX_ASLEEP")
    assert (await manager.caller.ask("POST", "b/extend", {"duration": "1h"}))[1]["error"]["code"] == "SANDBOX_NOT_FOUND"
    await manager.caller.put("b", keep_alive=True)
    assert (await manager.caller.ask("POST", "b/extend", {"duration": "1h"}))[1]["sandbox"]["sleeps_at"] is None


# --- busy ------------------------------------------------------------------------------------------------------


async def test_what_is_busy_for_max_busy_since_the_last_work_sleeps_and_goes_on_when_it_wakes(
    manager: InProcess, eventually: Eventually
) -> None:
    await manager.caller.put("a", sleep_after=0.05)
    await manager.caller.exec("a", "busy")
    await manager.caller.put("a", max_busy=0.3)
    await eventually(lambda: manager.actor("a").state == "sleeping")
    await manager.caller.put("a", keep_alive=True)
    assert (await manager.caller.agent_status("a"))["busy"]


async def test_a_busy_one_says_with_what(manager: InProcess) -> None:
    await manager.caller.put("a")
    await manager.caller.exec("a", "busy")
    body = (await manager.caller.ask("POST", "a/sleep", {}))[1]
    assert "exec 'told so'" in body["error"]["message"]


async def test_work_between_the_timer_and_the_freeze_does_not_keep_it_awake_for_ever(manager: InProcess) -> None:
    await manager.caller.put("a", sleep_after=100)
    activity = manager.actor("a").activity
    activity._disarm()
    await manager.actor("a")._fall_asleep()
    assert (manager.actor("a").state, activity._timer is not None) == ("running", True)


async def test_asking_for_a_running_sandbox_is_work(manager: InProcess) -> None:
    await manager.caller.put("a", sleep_after=100)
    before = manager.actor("a").activity._last_work
    await manager.caller.put("a")
    assert manager.actor("a").activity._last_work > before


# --- another manager -------------------------------------------------------------------------------------------


async def test_the_next_manager_counts_the_sleep_on_from_where_it_began(
    process: ManagerProcess, eventually: Eventually
) -> None:
    await process.start()
    for name, stop_after in (("long", 3600), ("short", 0.4)):
        await process.caller.put(name, stop_after=stop_after)
        await process.caller.ask("POST", f"{name}/sleep", {})
    await process.let_go()
    await process.end(signal.SIGKILL)
    await process.start()

    async def stopped() -> bool:
        return await process.caller.state("short") == "stopped"

    await eventually(stopped)
    assert await process.caller.state("long") == "sleeping"


async def test_the_next_manager_arms_every_timer_again(process: ManagerProcess, eventually: Eventually) -> None:
    await process.start()
    await process.caller.put("a", sleep_after=0.5)
    await process.caller.put("extended", sleep_after=0.5)
    await process.caller.ask("POST", "extended/extend", {"duration": "1h"})
    await process.let_go()
    await process.end(signal.SIGKILL)
    await process.start()

    async def asleep() -> bool:
        return await process.caller.state("a") == "sleeping"

    await eventually(asleep)
    assert await process.caller.state("extended") == "running"


# --- contexts --------------------------------------------------------------------------------------------------


async def test_a_context_is_lost_once_and_only_if_there_was_one(manager: InProcess) -> None:
    await manager.caller.put("a")
    for name in ("default", "other"):
        await manager.caller.ask("POST", "a/agent/api/kernels", {"context": name})
    assert (await _sandbox(manager, "a"))["lost_contexts"] == []
    await manager.caller.exec("a", "die")
    await manager.caller.put("a")
    assert (await _sandbox(manager, "a"))["lost_contexts"] == ["default", "other"]
    await manager.caller.ask("POST", "a/agent/api/kernels", {"context": "default"})
    assert (await _sandbox(manager, "a"))["lost_contexts"] == ["other"]
    await manager.caller.exec("a", "die")
    await manager.caller.put("a")
    assert (await _sandbox(manager, "a"))["lost_contexts"] == ["other", "default"]
