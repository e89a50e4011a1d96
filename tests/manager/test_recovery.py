"""What is left of sandboxes when their manager is killed, and what the next manager makes of it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from manager_parts import ManagerProcess, serving
from stand_in_engines import EngineOfPlainProcesses, _ours

from jupyter_sandbox import get_sandbox

STEPS = {
    "create": ("create:recorded", "create:directory", "start:recorded", "start:engine", "start:done"),
    "sleep": ("freeze:engine", "freeze:done"),
    "wake": ("thaw:engine", "thaw:done"),
    "restart": ("start:recorded", "start:engine", "start:done"),
    "destroy": ("destroy:recorded", "destroy:engine"),
}


async def test_a_manager_killed_while_a_sandbox_sleeps_then_the_next_cell_finds_its_variables(
    engine_name: str, environment: Any
) -> None:
    def work() -> None:
        with get_sandbox("sleeper") as sandbox:
            sandbox.run_code("a = 41")
            sandbox.sleep()
            assert sandbox.status().state == "sleeping"
            _kill(environment.manager_pid)
            assert sandbox.status().state == "sleeping"
            execution = sandbox.run_code("a + 1")
            assert execution.error is None
            assert execution.text == "42"
            assert sandbox.status().engine == engine_name

    await asyncio.to_thread(work)


async def test_a_manager_killed_while_a_sandbox_runs_then_the_next_cell_finds_its_variables(
    engine_name: str, environment: Any
) -> None:
    def work() -> None:
        with get_sandbox("runner") as sandbox:
            sandbox.run_code("a = 41")
            _kill(environment.manager_pid)
            assert sandbox.status().state == "running"
            assert sandbox.run_code("a + 1").text == "42"

    await asyncio.to_thread(work)


async def test_a_manager_asked_to_end_stops_even_what_sleeps_and_the_next_work_finds_its_files(
    engine_name: str, environment: Any
) -> None:
    def work() -> None:
        with get_sandbox("keeper") as sandbox:
            sandbox.write_file("kept", "here")
            sandbox.sleep()
            _kill(environment.manager_pid, signal.SIGTERM)
            assert sandbox.status().state == "stopped"
            assert sandbox.read_file("kept") == "here"
            assert sandbox.status().state == "running"

    await asyncio.to_thread(work)


def _kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process, and return once it is gone."""
    ended = os.pidfd_open(pid)
    os.kill(pid, number)
    select.select([ended], [], [], 10)
    os.close(ended)


async def _killed_at(process: ManagerProcess, operation: str, step: str) -> str | None:
    """Bring about that the manager dies at a step; the runtime that ran before, if one did."""
    before = None
    if operation != "create":
        await process.start()
        before = (await process.caller.put("a"))[1]["sandbox"]["runtime"]
        if operation == "wake":
            await process.caller.ask("POST", "a/sleep", {})
        if operation == "restart":
            await process.caller.exec("a", "die")
        await process.let_go()
        await process.end(signal.SIGKILL)
    await process.start(die_at=step)
    with suppress(aiohttp.ClientError):
        if operation in ("sleep", "destroy"):
            method, path = {"sleep": ("POST", "a/sleep"), "destroy": ("DELETE", "a")}[operation]
            await process.caller.ask(method, path, {})
        else:
            await process.caller.put("a")
    assert await process.wait() == -signal.SIGKILL
    await process.let_go()
    await process.start()
    return before


@pytest.mark.parametrize(("operation", "step"), [(name, step) for name, steps in STEPS.items() for step in steps])
async def test_a_manager_killed_at_any_step_leaves_a_sandbox_that_works_and_nothing_else(
    process: ManagerProcess, operation: str, step: str
) -> None:
    before = await _killed_at(process, operation, step)
    status, body = await process.caller.put("a")
    assert (status, body["sandbox"]["state"]) == (200, "running")
    assert (await process.caller.exec("a", "echo x"))[1][0]["data"] == "x"
    if operation in ("sleep", "wake"):
        assert body["sandbox"]["runtime"] == before
    if operation == "destroy":
        assert body["sandbox"]["previous_end"] is None
    assert [found["LIFETIME"] for found in _ours().values() if _is_of(found, process)] == [body["sandbox"]["lifetime"]]
    assert [path.name for path in (process.data / "sandboxes").iterdir()] == [body["sandbox"]["lifetime"]]


def _is_of(found: dict[str, str], process: ManagerProcess) -> bool:
    with sqlite3.connect(process.data / "records.sqlite") as records:
        (installation,) = records.execute("SELECT value FROM meta WHERE name = 'installation'").fetchone()
    return found["JSBTEST_INSTALLATION"] == installation


async def test_a_runtime_that_ended_while_no_manager_ran_is_stopped_and_says_so(process: ManagerProcess) -> None:
    await process.start()
    lifetime = (await process.caller.put("a"))[1]["sandbox"]["lifetime"]
    await process.let_go()
    await process.end(signal.SIGKILL)
    (pid,) = (pid for pid, found in _ours().items() if found["LIFETIME"] == lifetime)
    os.kill(pid, signal.SIGKILL)
    await process.start()
    sandbox = (await process.caller.ask("GET", "a"))[1]["sandbox"]
    assert (sandbox["state"], sandbox["previous_end"]) == ("stopped", "it ended while no manager was running")
    assert (await process.caller.exec("a", "echo x"))[1][0]["data"] == "x"


async def test_a_channel_of_a_killed_manager_can_be_opened_again_at_the_same_kernel(process: ManagerProcess) -> None:
    await process.start()
    runtime = (await process.caller.put("a"))[1]["sandbox"]["runtime"]
    await process.let_go()
    await process.end(signal.SIGKILL)
    await process.start()
    async with await process.caller.channel("a"):
        assert (await process.caller.agent_status("a"))["runtime"] == runtime


class EngineSlowToTell(EngineOfPlainProcesses):
    """Does not say whether a runtime lives until ``go`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def is_alive(self, runtime: Any) -> bool:
        await self.go.wait()
        return await super().is_alive(runtime)


async def test_requests_wait_for_the_adoption_of_their_own_sandbox_and_for_no_other(place: Path) -> None:
    engine = EngineSlowToTell()
    async with serving(place, EngineOfPlainProcesses()) as first:
        await first.caller.put("a")
        records = await first.services.records.all()
        (place / "m.sock").rename(place / "former.sock")
        async with serving(place, engine) as second:
            assert len(records) == 1
            asked = asyncio.create_task(second.caller.exec("a", "echo x"))
            assert (await second.caller.ask("GET", "http://manager/version"))[0] == 200
            assert len((await second.caller.ask("GET", "http://manager/sandboxes"))[1]["sandboxes"]) == 1
            assert not asked.done()
            engine.go.set()
            assert (await asked)[1][0]["data"] == "x"
        (place / "former.sock").rename(place / "m.sock")


async def test_engine_objects_without_a_record_are_removed(
    process: ManagerProcess, eventually: Callable[..., Any]
) -> None:
    await process.start()
    lifetime = (await process.caller.put("a"))[1]["sandbox"]["lifetime"]
    await process.let_go()
    await process.end(signal.SIGKILL)
    with sqlite3.connect(process.data / "records.sqlite") as records:
        records.execute("DELETE FROM sandboxes")
    await process.start()
    await eventually(lambda: all(found["LIFETIME"] != lifetime for found in _ours().values()))
