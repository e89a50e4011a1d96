"""One sandbox over its life: who shares what, what wakes it, what it is told when it fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from manager_parts import InProcess, serving
from stand_in_engines import (
    EngineOfPlainProcesses,
    EngineSlowToStart,
    EngineThatFailsToDestroy,
    EngineThatFailsToFreeze,
    EngineThatFailsToStart,
    EngineThatForgetsContainers,
    EngineWithImages,
)

from jupyter_sandbox.options import SandboxOptions


async def test_concurrent_first_calls_share_one_start(manager: InProcess) -> None:
    answers = await asyncio.gather(*(manager.caller.put("a") for _ in range(10)))
    assert {status for status, _ in answers} == {200}
    assert len({body["sandbox"]["runtime"] for _, body in answers}) == 1
    assert manager.engine.calls == ["start"]


async def test_a_start_streams_its_steps_and_then_the_sandbox(manager: InProcess) -> None:
    _, lines = await manager.caller.ask("PUT", "a", {}, headers={"Accept": "application/x-ndjson"})
    assert [line.get("step") for line in lines[:-1]] == ["container", "agent"]
    assert lines[-1]["sandbox"]["state"] == "running"


async def test_a_failed_start_ends_the_stream_with_the_error(place: Path) -> None:
    async with serving(place, EngineThatFailsToStart()) as manager:
        _, lines = await manager.caller.ask("PUT", "a", {}, headers={"Accept": "application/x-ndjson"})
        assert lines[-1]["error"]["code"] == "IMAGE_MISSING"


async def test_a_caller_who_goes_away_does_not_cancel_the_start_for_others(place: Path) -> None:
    async with serving(place, engine := EngineSlowToStart()) as manager:
        first = asyncio.create_task(manager.caller.put("a"))
        second = asyncio.create_task(manager.caller.put("a"))
        await engine.asked.wait()
        first.cancel()
        await asyncio.wait({first})
        engine.go.set()
        assert (await second)[0] == 200
        assert engine.calls == ["start"]


async def test_a_failed_start_is_told_to_all_who_wait_and_the_next_call_tries_again(place: Path) -> None:
    async with serving(place, engine := EngineThatFailsToStart()) as manager:
        answers = await asyncio.gather(*(manager.caller.put("a") for _ in range(3)))
        assert {body["error"]["code"] for _, body in answers} == {"IMAGE_MISSING"}
        assert engine.calls == ["start"]
        assert await manager.caller.state("a") == "failed"
        assert (await manager.caller.put("a"))[0] == 200


async def test_concurrent_destroys_share_one_and_the_id_is_free_again(manager: InProcess) -> None:
    first = (await manager.caller.put("a"))[1]["sandbox"]["lifetime"]
    directory = manager.actor("a").lifetime.directory
    answers = await asyncio.gather(*(manager.caller.ask("DELETE", "a") for _ in range(5)))
    assert {status for status, _ in answers} == {204}
    assert manager.engine.calls.count("destroy") == 1
    assert not directory.exists()
    assert await manager.caller.state("a") == "SANDBOX_NOT_FOUND"
    assert (await manager.caller.put("a"))[1]["sandbox"]["lifetime"] != first


async def test_destroying_what_does_not_exist_succeeds(manager: InProcess) -> None:
    assert (await manager.caller.ask("DELETE", "never-was"))[0] == 204


async def test_a_destroy_during_a_start_ends_the_start(place: Path) -> None:
    async with serving(place, engine := EngineSlowToStart()) as manager:
        start = asyncio.create_task(manager.caller.put("a"))
        await engine.asked.wait()
        assert (await manager.caller.ask("DELETE", "a"))[0] == 204
        assert (await start)[1]["error"]["code"] == "SANDBOX_DESTROYED"
        assert "start" not in engine.calls
        engine.go.set()
        assert (await manager.caller.put("a"))[0] == 200


async def test_a_destroy_that_failed_can_be_repeated_and_is_finished_before_the_id_is_used(place: Path) -> None:
    async with serving(place, engine := EngineThatFailsToDestroy()) as manager:
        first = (await manager.caller.put("a"))[1]["sandbox"]["lifetime"]
        assert (await manager.caller.ask("DELETE", "a"))[1]["error"]["code"] == "ENGINE_UNAVAILABLE"
        assert await manager.caller.state("a") == "destroying"
        assert (await manager.caller.exec("a", "echo"))[1]["error"]["code"] == "SANDBOX_DESTROYED"
        assert (await manager.caller.put("a"))[1]["sandbox"]["lifetime"] != first
        assert engine.calls == ["start", "destroy", "start"]


async def test_work_wakes_and_looking_does_not(manager: InProcess) -> None:
    await manager.caller.put("a")
    assert (await manager.caller.ask("POST", "a/sleep", {}))[1]["sandbox"]["state"] == "sleeping"
    assert (await manager.caller.ask("GET", "a/agent/status"))[1]["error"]["code"] == "SANDBOX_ASLEEP"
    assert (await manager.caller.ask("GET", "a"))[0] == 200
    assert (await manager.caller.ask("GET", "http://manager/sandboxes"))[1]["sandboxes"][0]["state"] == "sleeping"
    assert await manager.caller.state("a") == "sleeping"
    assert (await manager.caller.exec("a", "echo x"))[1][0]["data"] == "x"
    assert await manager.caller.state("a") == "running"
    assert manager.engine.calls == ["start", "freeze", "thaw"]


async def test_many_who_wake_it_share_one_thaw(manager: InProcess) -> None:
    await manager.caller.put("a")
    await manager.caller.ask("POST", "a/sleep", {})
    answers = await asyncio.gather(*(manager.caller.exec("a", "echo x") for _ in range(8)))
    assert {status for status, _ in answers} == {200}
    assert manager.engine.calls.count("thaw") == 1


async def test_it_falls_asleep_after_sleep_after(manager: InProcess, eventually: Callable[..., Any]) -> None:
    sandbox = (await manager.caller.put("a", sleep_after=0.1))[1]["sandbox"]
    assert sandbox["sleeps_at"] is not None
    await eventually(lambda: manager.actor("a").state == "sleeping")
    assert manager.actor("a").activity.sleeps_at() is None


async def test_looking_does_not_keep_it_awake(manager: InProcess) -> None:
    await manager.caller.put("a", sleep_after=0.3)
    async with asyncio.timeout(10):
        while (await manager.caller.ask("GET", "a/agent/status"))[0] == 200:
            await asyncio.sleep(0.02)
    assert manager.actor("a").state == "sleeping"


async def test_keep_alive_never_sleeps_and_can_be_taken_back_at_once(
    manager: InProcess, eventually: Callable[..., Any]
) -> None:
    sandbox = (await manager.caller.put("a", sleep_after=0.05, keep_alive=True))[1]["sandbox"]
    assert sandbox["sleeps_at"] is None
    assert manager.actor("a").activity._timer is None
    await manager.caller.put("a", keep_alive=False)
    await eventually(lambda: manager.actor("a").state == "sleeping")


async def test_a_busy_agent_keeps_it_awake_until_max_busy(manager: InProcess, eventually: Callable[..., Any]) -> None:
    await manager.caller.put("a", sleep_after=0.05)
    await manager.caller.exec("a", "busy")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await eventually(lambda: manager.actor("a").state == "sleeping")
    await manager.caller.put("a", max_busy=0.1)
    await eventually(lambda: manager.actor("a").state == "sleeping")


async def test_a_command_in_flight_keeps_it_awake_until_max_busy(
    manager: InProcess, eventually: Callable[..., Any]
) -> None:
    await manager.caller.put("a", sleep_after=0.05, max_busy=0.5)
    command = asyncio.create_task(manager.caller.exec("a", "hold"))
    await eventually(lambda: manager.actor("a").activity.in_flight)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await eventually(lambda: manager.actor("a").state == "sleeping")
    await eventually(lambda: manager.actor("a").state == "sleeping")
    command.cancel()


async def test_sleep_of_a_busy_one_needs_force(manager: InProcess, eventually: Callable[..., Any]) -> None:
    await manager.caller.put("a")
    await manager.caller.exec("a", "busy")
    assert (await manager.caller.ask("POST", "a/sleep", {}))[1]["error"]["code"] == "SANDBOX_BUSY"
    assert (await manager.caller.ask("POST", "a/sleep", {"force": True}))[1]["sandbox"]["state"] == "sleeping"
    await manager.caller.exec("a", "idle")
    command = asyncio.create_task(manager.caller.exec("a", "hold"))
    await eventually(lambda: manager.actor("a").activity.in_flight)
    assert (await manager.caller.ask("POST", "a/sleep", {}))[1]["error"]["code"] == "SANDBOX_BUSY"
    command.cancel()


async def test_an_engine_that_cannot_freeze_leaves_it_running(place: Path) -> None:
    async with serving(place, EngineThatFailsToFreeze()) as manager:
        await manager.caller.put("a")
        assert (await manager.caller.ask("POST", "a/sleep", {}))[1]["error"]["code"] == "ENGINE_UNAVAILABLE"
        assert (await manager.caller.exec("a", "echo x"))[1][0]["data"] == "x"


async def test_what_cannot_be_frozen_is_stopped_when_max_busy_is_over(
    place: Path, eventually: Callable[..., Any]
) -> None:
    async with serving(place, EngineThatFailsToFreeze()) as manager:
        await manager.caller.put("a", sleep_after=0.05, max_busy=0.05)
        await eventually(lambda: manager.actor("a").state == "stopped")
        sandbox = (await manager.caller.ask("GET", "a"))[1]["sandbox"]
        assert sandbox["previous_end"] == "it could not be put to sleep, and `max_busy` was over"
        await manager.caller.put("a", max_busy="1h")
        assert (await manager.caller.exec("a", "echo x"))[1][0]["data"] == "x"


async def test_a_runtime_that_ends_says_why_and_the_next_work_starts_another(
    manager: InProcess, eventually: Callable[..., Any]
) -> None:
    first = (await manager.caller.put("a"))[1]["sandbox"]
    _, lines = await manager.caller.exec("a", "die now")
    assert lines[0]["data"] == "now"
    assert lines[-1]["error"]["code"] == "AGENT_UNREACHABLE"
    assert "it exited of itself" in lines[-1]["error"]["message"]
    await eventually(lambda: manager.actor("a").state == "stopped")
    sandbox = (await manager.caller.ask("GET", "a"))[1]["sandbox"]
    assert (sandbox["state"], sandbox["previous_end"]) == ("stopped", "it exited of itself")
    assert (await manager.caller.exec("a", "echo x"))[1][0]["data"] == "x"
    again = (await manager.caller.ask("GET", "a"))[1]["sandbox"]
    assert again["lifetime"] == first["lifetime"]
    assert again["runtime"] != first["runtime"]
    assert (manager.actor("a").lifetime.directory / "file").read_text() == "kept"


async def test_a_runtime_that_an_engine_forgot_is_replaced_by_the_next_work(place: Path) -> None:
    async with serving(place, engine := EngineThatForgetsContainers()) as manager:
        await manager.caller.put("a")
        await manager.caller.exec("a", "die")
        assert (await manager.caller.exec("a", "echo x"))[1][0]["data"] == "x"
        assert engine.calls == ["start", "start"]


async def test_an_agent_whose_socket_was_removed_is_replaced_by_the_next_work(manager: InProcess) -> None:
    await manager.caller.put("a")
    link = manager.actor("a").lifetime.link
    assert link is not None
    Path(link.runtime.socket).unlink()
    assert (await manager.caller.exec("a", "echo x"))[1][0]["data"] == "x"
    assert manager.engine.calls == ["start", "stop", "start"]


async def test_options_given_later_apply_at_once_and_only_explicit_ones_are_kept(manager: InProcess) -> None:
    await manager.caller.put("a", env={"A": "1"}, limits={"cpus": 1})
    body = {"options": {"env": {"B": "2"}, "limits": {"pids": 100}}, "environment": {"engine": "auto"}}
    assert (await manager.caller.ask("PUT", "a", body))[0] == 200
    assert (await manager.caller.agent_status("a"))["env"] == {"B": "2"}
    assert (manager.engine.limits.cpus, manager.engine.limits.pids) == (1, 100)
    kept = manager.actor("a").record.options.to_json()
    assert kept == {"env": {"B": "2"}, "limits": {"cpus": 1, "pids": 100}}
    await manager.caller.put("a")
    assert manager.actor("a").record.options.to_json() == kept


async def test_a_sleeping_sandbox_gets_its_new_environment_when_it_wakes(manager: InProcess) -> None:
    await manager.caller.put("a")
    await manager.caller.ask("POST", "a/sleep", {})
    await manager.caller.ask("PUT", "a", {"options": {"env": {"A": "1"}}, "start": False})
    assert manager.actor("a").state == "sleeping"
    await manager.caller.exec("a", "echo")
    assert (await manager.caller.agent_status("a"))["env"] == {"A": "1"}


@pytest.mark.parametrize(("option", "value"), [("engine", "docker"), ("image", "another:1"), ("network", "internet")])
async def test_what_cannot_change_is_a_conflict_that_names_both_values(
    manager: InProcess, option: str, value: str
) -> None:
    await manager.caller.put("a")
    status, body = await manager.caller.put("a", **{option: value})
    assert (status, body["error"]["code"]) == (409, "OPTION_CONFLICT")
    assert value in body["error"]["message"]


async def test_what_never_ran_may_be_asked_for_again_with_another_image(place: Path) -> None:
    engine = EngineWithImages()
    engine.failures = 1
    async with serving(place, engine, images=("*",)) as manager:
        assert (await manager.caller.put("a", image="misspelt:1"))[1]["error"]["code"] == "IMAGE_MISSING"
        assert (await manager.caller.put("a", image="right:1"))[0] == 200
        assert manager.actor("a").record.image == "right:1"


async def test_any_mix_of_calls_at_once_is_answered_and_leaves_nothing_behind(manager: InProcess) -> None:
    dice = random.Random(7)
    caller = manager.caller

    async def call(number: int) -> str | None:
        sandbox_id = f"s{number % 3}"
        await asyncio.sleep(dice.random())
        kind = dice.choice(["put", "exec", "exec", "sleep", "force", "delete", "die", "status", "options"])
        answers = {
            "put": lambda: caller.put(sandbox_id),
            "exec": lambda: caller.exec(sandbox_id, "echo x"),
            "sleep": lambda: caller.ask("POST", f"{sandbox_id}/sleep", {}),
            "force": lambda: caller.ask("POST", f"{sandbox_id}/sleep", {"force": True}),
            "delete": lambda: caller.ask("DELETE", sandbox_id),
            "die": lambda: caller.exec(sandbox_id, "die"),
            "status": lambda: caller.ask("GET", sandbox_id),
            "options": lambda: caller.put(sandbox_id, env={"N": str(number)}, sleep_after=dice.choice([0.05, 60])),
        }
        _, body = await answers[kind]()
        last = body[-1] if isinstance(body, list) else body
        return last["error"]["code"] if last and last.get("error") else None

    codes = await asyncio.gather(*(call(number) for number in range(150)))
    allowed = {"SANDBOX_NOT_FOUND", "SANDBOX_DESTROYED", "SANDBOX_BUSY", "AGENT_UNREACHABLE"}
    assert set(codes) - {None} <= allowed
    for number in range(3):
        assert (await caller.put(f"s{number}"))[0] == 200
        assert (await caller.exec(f"s{number}", "echo x"))[1][0]["data"] == "x"
        assert manager.actor(f"s{number}").activity.in_flight == 0
    lifetimes = {actor.record.lifetime for actor in manager.registry.all()}
    assert await manager.engine.find(manager.services.records.installation) == lifetimes
    assert {path.name for path in manager.services.directory.iterdir()} == lifetimes


async def test_the_status_says_which_network_a_sandbox_has(manager: InProcess) -> None:
    assert (await manager.caller.put("a", network="internet"))[1]["sandbox"]["network"] == "internet"
    assert (await manager.caller.put("b"))[1]["sandbox"]["network"] == "none"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("UPPER_CASE", {}, "INVALID_ID_CHARACTER"),
        ("admin", {}, "INVALID_ID_RESERVED"),
        ("-a", {}, "INVALID_ID_HYPHEN"),
        ("x" * 64, {}, "INVALID_ID_TOO_LONG"),
        ("a", {"options": {"sleep_after": "soon"}}, "INVALID_DURATION"),
        ("a", {"options": {"colour": 1}}, "INVALID_OPTION"),
        ("a", {"options": []}, "INVALID_REQUEST"),
        ("a", {"options": 3}, "INVALID_REQUEST"),
        ("a", {"start": "yes"}, "INVALID_REQUEST"),
        ("a", {"interpreter": {"executable": "python"}}, "INVALID_REQUEST"),
        ("a", ["no", "object"], "INVALID_REQUEST"),
    ],
)
async def test_bad_input_is_named_before_anything_starts(
    manager: InProcess, path: str, body: object, code: str
) -> None:
    assert (await manager.caller.ask("PUT", path, body))[1]["error"]["code"] == code
    assert manager.engine.calls == []
    assert list(manager.registry.all()) == []


async def test_what_belongs_to_somebody_else_is_not_found(manager: InProcess) -> None:
    await manager.caller.put("a")
    assert (await manager.caller.ask("GET", "http://manager/sandboxes/os:test/a"))[0] == 200
    for owner in ("os:other", "OS:test", "hub:test", "*"):
        status, body = await manager.caller.ask("GET", f"http://manager/sandboxes/{owner}/a")
        assert (status, body["error"]["code"]) == (404, "SANDBOX_NOT_FOUND"), owner


async def test_events_tell_of_every_change_and_stay_bounded(manager: InProcess) -> None:
    with manager.services.events.listen() as mailbox:
        await manager.caller.put("a")
        await manager.caller.ask("POST", "a/sleep", {})
        events = await mailbox.take()
    assert [(event["id"], event["owner"], event["state"]) for event in events] == [("a", "os:test", "sleeping")]
    assert events[0]["generation"] > 1


async def test_defaults_of_the_configuration_are_below_everything_else(place: Path) -> None:
    async with serving(place, EngineOfPlainProcesses(), SandboxOptions(sleep_after=5, keep_alive=True)) as manager:
        assert (await manager.caller.put("a", sleep_after=7))[1]["sandbox"]["keep_alive"] is True
        assert manager.actor("a").activity._options.sleep_after == 7
