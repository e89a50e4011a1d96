"""Ceilings: what is asked for above one is refused by name, what is a default is lowered, and no failure allows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manager_parts import serving
from stand_in_engines import EngineOfPlainProcesses, EngineSlowToStart, EngineWithImages

from jupyter_sandbox import SandboxError
from jupyter_sandbox.engines.base import Interpreter
from jupyter_sandbox.manager.policy import (
    Ceilings,
    Policy,
    allowed_engine,
    lower,
    refuse_excess,
    refuse_extension,
    refuse_interpreter,
)
from jupyter_sandbox.manager.principals import Principal, one_person
from jupyter_sandbox.manager.slots import Slots
from jupyter_sandbox.options import GIB, MIB, Limits, SandboxOptions, resolve

ADA = Principal(owner="os:ada", actor="os:ada", groups=("students",))


def refusal(given: dict[str, Any], **ceilings: Any) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        refuse_excess(SandboxOptions(**given), Ceilings(**ceilings))
    assert caught.value.code == "POLICY_DENIED"
    assert caught.value.http_status == 403
    return caught.value


# --- explicit values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_options", "ceilings", "words"),
    [
        ({"sleep_after": "2h"}, {"sleep_after": "1h"}, ("sleep_after=7200 s", "3600 s")),
        ({"stop_after": 61}, {"stop_after": 60}, ("stop_after=61 s", "60 s")),
        ({"max_busy": "2h"}, {"max_busy": "1h"}, ("max_busy=7200 s", "3600 s")),
        ({"keep_alive": True}, {"keep_alive": False}, ("keep_alive=True",)),
        ({"limits": {"cpus": 4}}, {"limits": {"cpus": 1.5}}, ("limits.cpus=4", "1.5")),
        ({"limits": {"memory": "2g"}}, {"limits": {"memory": "1g"}}, (f"limits.memory={2 * GIB}", f"{GIB}")),
        ({"limits": {"pids": 512}}, {"limits": {"pids": 100}}, ("limits.pids=512", "100")),
        ({"limits": {"disk": "2g"}}, {"limits": {"disk": "1g"}}, ("limits.disk",)),
        ({"network": "internet"}, {"network": "none"}, ("network='internet'", "'none'")),
        ({"engine": "bubblewrap"}, {"engines": ["docker"]}, ("engine='bubblewrap'", "'docker'")),
    ],
)
def test_what_is_asked_for_above_a_ceiling_is_refused_with_value_and_ceiling(
    given_options: dict[str, Any], ceilings: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused = refusal(given_options, **ceilings)
    assert all(word in refused.message for word in words), refused.message
    assert {"option", "value", "ceiling"} <= set(refused.details)
    assert refused.remedy


def test_a_value_at_its_ceiling_is_allowed() -> None:
    ceilings = Ceilings(sleep_after="1h", limits={"memory": "1g"}, network="none", engines=("docker",))
    refuse_excess(SandboxOptions(sleep_after=3600, limits={"memory": GIB}, network="none", engine="docker"), ceilings)
    refuse_excess(SandboxOptions(engine="auto"), ceilings)


durations = st.one_of(st.none(), st.floats(0.001, 1e8))
limits = st.builds(
    Limits,
    cpus=st.one_of(st.none(), st.floats(0.05, 1024)),
    memory=st.one_of(st.none(), st.integers(64 * MIB, 64 * GIB)),
    pids=st.one_of(st.none(), st.integers(16, 10_000)),
    disk=st.one_of(st.none(), st.integers(MIB, 64 * GIB)),
)
given_by_somebody = st.builds(
    SandboxOptions,
    sleep_after=durations,
    stop_after=durations,
    max_busy=durations,
    keep_alive=st.sampled_from([None, True, False]),
    limits=limits,
    network=st.sampled_from([None, "none", "internet"]),
)
some_ceilings = st.builds(
    Ceilings,
    sleep_after=durations,
    stop_after=durations,
    max_busy=durations,
    keep_alive=st.booleans(),
    limits=limits,
    network=st.sampled_from(["none", "internet"]),
)


@given(given_by_somebody, some_ceilings)
def test_nothing_that_applies_is_ever_above_its_ceiling(options: SandboxOptions, ceilings: Ceilings) -> None:
    applies = lower(resolve(options), ceilings)
    for name in ("sleep_after", "stop_after", "max_busy"):
        assert getattr(ceilings, name) is None or getattr(applies, name) <= getattr(ceilings, name)
    for name in ("cpus", "memory", "pids", "disk"):
        highest = getattr(ceilings.limits, name)
        assert highest is None or getattr(applies.limits, name) <= highest
    assert ceilings.keep_alive or not applies.keep_alive
    assert ceilings.network == "internet" or applies.network in (None, "none")
    assert lower(applies, ceilings) == applies


@given(given_by_somebody, some_ceilings)
def test_what_is_not_refused_applies_as_it_was_asked_for(options: SandboxOptions, ceilings: Ceilings) -> None:
    try:
        refuse_excess(options, ceilings)
    except SandboxError:
        return
    applies = lower(resolve(options), ceilings)
    for name in ("sleep_after", "stop_after", "max_busy", "network"):
        assert getattr(options, name) in (None, getattr(applies, name))
    for name in ("cpus", "memory", "pids", "disk"):
        assert getattr(options.limits, name) in (None, getattr(applies.limits, name))


@given(given_by_somebody)
def test_without_ceilings_nothing_changes(options: SandboxOptions) -> None:
    refuse_excess(options, Ceilings())
    assert lower(resolve(options), Ceilings()) == resolve(options)


def test_an_extension_is_bounded_as_work_is() -> None:
    refuse_extension(60, Ceilings(max_busy=60))
    refuse_extension(1e8, Ceilings())
    with pytest.raises(SandboxError, match="duration=61 s is above the ceiling of 60 s"):
        refuse_extension(61, Ceilings(max_busy=60))


def test_auto_means_the_first_engine_that_is_allowed() -> None:
    assert allowed_engine("docker", Ceilings()) == "docker"
    assert allowed_engine("docker", Ceilings(engines=("bubblewrap", "docker"))) == "docker"
    assert allowed_engine("docker", Ceilings(engines=("bubblewrap",))) == "bubblewrap"


# --- the Python of a client ----------------------------------------------------------------------------------------


def python(prefix: Path, executable: Path | None = None) -> Interpreter:
    return Interpreter(executable=str(executable or prefix / "bin/python"), prefix=str(prefix), base_prefix="/usr")


def test_only_a_python_below_an_allowed_directory_is_shown_to_a_sandbox(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    (allowed / "v/bin").mkdir(parents=True)
    other.mkdir()
    (allowed / "v/bin/python").symlink_to("/usr/bin/python3")
    ceilings = Ceilings(prefixes=(str(allowed),))
    refuse_interpreter(python(allowed / "v"), ceilings)
    refuse_interpreter(python(other), Ceilings())
    (allowed / "leads-out").symlink_to(other)
    (other / "leads-in").symlink_to(allowed / "v")
    for refused in (
        python(other),
        python(allowed / "leads-out"),
        python(other / "leads-in"),
        python(allowed / ".." / "other"),
        python(allowed / "v", other / "python"),
        python(tmp_path / "allowed-not"),
    ):
        with pytest.raises(SandboxError, match="may not be used") as caught:
            refuse_interpreter(refused, ceilings)
        assert str(allowed) in caught.value.message


# --- the rule ------------------------------------------------------------------------------------------------------


def test_a_rule_may_return_a_dict() -> None:
    policy = Policy(lambda who: {"sandboxes": 2, "limits": {"memory": "1g"}} if "students" in who.groups else {})
    assert policy(ADA).sandboxes == 2
    assert policy(ADA).limits.memory == GIB
    assert policy(Principal(owner="os:eve", actor="os:eve")) == Ceilings()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        3,
        {"sandbox": 2},
        {"sandboxes": -1},
        {"sandboxes": True},
        {"limits": {"memory": "much"}},
        {"engines": "docker"},
        {"engines": []},
        {"engines": ["podman"]},
        {"prefixes": ["relative"]},
        {"keep_alive": None},
        {"network": "lan"},
    ],
)
def test_a_rule_that_answers_nonsense_allows_nothing(answer: Any) -> None:
    with pytest.raises(SandboxError, match="policy of this manager failed") as caught:
        Policy(lambda _: answer)(ADA)
    assert caught.value.code == "POLICY_DENIED"


def test_a_rule_that_raises_allows_nothing() -> None:
    def rule(_: Principal) -> Ceilings:
        raise KeyError("no such group")

    with pytest.raises(SandboxError, match="KeyError") as caught:
        Policy(rule)(ADA)
    assert caught.value.code == "POLICY_DENIED"


def test_a_personal_manager_answers_its_own_user_only() -> None:
    principals = one_person("os:ada")
    assert principals("-") == principals("os:ada")
    assert principals("os:eve") is None
    mine = principals("-")
    assert mine is not None
    assert mine.owner == mine.actor == "os:ada"
    assert mine.groups


# --- slots ---------------------------------------------------------------------------------------------------------


def test_a_slot_counts_from_the_request_to_the_end() -> None:
    slots = Slots()
    slots.reserve(("a", "1"), 1)
    slots.reserve(("a", "1"), 1)
    slots.reserve(("b", "1"), 1)
    with pytest.raises(SandboxError, match="the limit is 1") as caught:
        slots.reserve(("a", "2"), 1)
    assert (caught.value.code, caught.value.http_status) == ("LIMIT_REACHED", 429)
    slots.release(("a", "1"))
    slots.reserve(("a", "2"), 1)
    assert (slots.count("a"), slots.count("b"), slots.count("c")) == (1, 1, 0)


async def test_fifty_creations_at_once_never_make_more_than_the_limit(place: Path) -> None:
    engine = EngineSlowToStart()
    async with serving(place, engine, rule=lambda _: {"sandboxes": 3}) as manager:
        asked = [asyncio.create_task(manager.caller.put(f"s{number}")) for number in range(50)]
        async with asyncio.timeout(60):
            while sum(task.done() for task in asked) < 47:
                await asyncio.sleep(0.01)
        refused = [task.result() for task in asked if task.done()]
        assert {(status, body["error"]["code"]) for status, body in refused} == {(429, "LIMIT_REACHED")}
        assert "limit is 3" in refused[0][1]["error"]["message"]
        engine.go.set()
        assert [status for status, _ in await asyncio.gather(*asked)].count(200) == 3
        mine = (await manager.caller.ask("GET", "http://manager/sandboxes"))[1]["sandboxes"]
        assert len(mine) == 3
        assert (await manager.caller.put(mine[0]["id"]))[0] == 200
        await manager.caller.ask("DELETE", mine[0]["id"])
        assert (await manager.caller.put("another"))[0] == 200


async def test_a_creation_that_fails_gives_its_slot_back(place: Path) -> None:
    async with serving(place, EngineOfPlainProcesses(), rule=lambda _: {"sandboxes": 1}) as manager:
        for _ in range(3):
            assert (await manager.caller.put("a", image="x:1"))[0] == 400
        assert (await manager.caller.put("b"))[0] == 200


# --- through a manager ---------------------------------------------------------------------------------------------


async def test_defaults_are_lowered_and_explicit_values_are_refused(place: Path) -> None:
    rule = {"sleep_after": 30, "limits": {"memory": "1g"}, "keep_alive": False, "max_busy": "1h"}
    async with serving(place, EngineOfPlainProcesses(), rule=lambda _: rule) as manager:
        status, body = await manager.caller.put("a", limits={"memory": 2 * GIB})
        assert (status, body["error"]["code"]) == (403, "POLICY_DENIED")
        assert await manager.caller.state("a") == "SANDBOX_NOT_FOUND"
        _, body = await manager.caller.put("a")
        assert body["sandbox"]["limits"]["memory"] == GIB
        status, body = await manager.caller.put("a", keep_alive=True)
        assert (status, body["error"]["code"]) == (403, "POLICY_DENIED")
        status, body = await manager.caller.ask("POST", "a/extend", {"duration": "2h"})
        assert (status, body["error"]["code"]) == (403, "POLICY_DENIED")
        assert (await manager.caller.ask("POST", "a/extend", {"duration": "1h"}))[0] == 200


async def test_a_policy_that_becomes_stricter_lowers_what_exists(place: Path) -> None:
    rule: dict[str, Any] = {}
    async with serving(place, EngineOfPlainProcesses(), rule=lambda _: rule) as manager:
        _, body = await manager.caller.put("a", keep_alive=True)
        assert body["sandbox"]["keep_alive"] is True
        rule["keep_alive"] = False
        _, body = await manager.caller.ask("GET", "a")
        assert body["sandbox"]["keep_alive"] is False


async def test_what_belongs_to_somebody_else_is_not_there(place: Path) -> None:
    async with serving(place, EngineOfPlainProcesses()) as manager:
        for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/wake"), ("POST", "/sleep")):
            status, body = await manager.caller.ask(method, f"http://manager/sandboxes/os:eve/a{more}", {})
            assert (status, body["error"]["code"]) == (404, "SANDBOX_NOT_FOUND")
        status, _ = await manager.caller.ask("PUT", "http://manager/sandboxes/os:eve/a", {})
        assert status == 404


# --- images --------------------------------------------------------------------------------------------------------


async def test_only_listed_images_are_used_and_the_default_one_needs_no_list(place: Path) -> None:
    engine = EngineWithImages()
    async with serving(place, engine, images=("listed",)) as manager:
        assert (await manager.caller.put("a"))[0] == 200
        assert (await manager.caller.put("b", image="usual:1"))[0] == 200
        assert (await manager.caller.put("c", image="listed:latest"))[0] == 200
        assert engine.started == ["sha256:first-usual:1", "sha256:first-usual:1", "sha256:first-listed:latest"]
        status, body = await manager.caller.put("d", image="other:1")
        assert (status, body["error"]["code"]) == (403, "POLICY_DENIED")
        assert "'other:1'" in body["error"]["message"]
        assert "'listed'" in body["error"]["message"]


async def test_a_policy_names_the_images_of_a_group(place: Path) -> None:
    engine = EngineWithImages()
    async with serving(place, engine, rule=lambda _: {"images": ["course:3"]}) as manager:
        assert (await manager.caller.put("a", image="usual:1"))[0] == 403
        assert (await manager.caller.put("a"))[0] == 200
        assert engine.started == ["sha256:first-course:3"]


async def test_a_name_that_moved_to_another_image_is_refused_until_somebody_says_that_it_is_meant(place: Path) -> None:
    engine = EngineWithImages()
    async with serving(place, engine) as manager:
        assert (await manager.caller.put("a"))[0] == 200
        engine.moved["usual:1"] = "sha256:second"
        status, body = await manager.caller.put("b")
        assert (status, body["error"]["code"]) == (403, "POLICY_DENIED")
        assert "jupyter sandbox trust usual:1" in body["error"]["remedy"]
        assert (await manager.caller.exec("a", "echo"))[0] == 200
        status, body = await manager.caller.ask("POST", "http://manager/images/trust", {})
        assert (status, body) == (200, {"image": "usual:1", "id": "sha256:second"})
        assert (await manager.caller.put("b"))[0] == 200
        assert engine.started[-1] == "sha256:second"


async def test_an_image_is_refused_where_there_are_none(place: Path) -> None:
    async with serving(place, EngineOfPlainProcesses()) as manager:
        status, body = await manager.caller.put("a", image="any:1")
        assert (status, body["error"]["code"]) == (400, "INVALID_OPTION")
        status, body = await manager.caller.ask("POST", "http://manager/images/trust", {"image": "any:1"})
        assert (status, body["error"]["code"]) == (503, "ENGINE_UNAVAILABLE")
