"""Random operations, faults and time over the manager's registry, compared with a model of a page.

The engine is a fake (``engine_in_one_loop``), records, actors and timers are the real ones. A step is one operation,
after which everything that it has set off is waited for; then the manager must be as the model says, in memory, in its
records, on disk and in the engine.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from engine_in_one_loop import EngineInOneLoop, LoopWithItsOwnClock, facts
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jupyter_sandbox.errors import SandboxError
from jupyter_sandbox.manager.actor import Actor
from jupyter_sandbox.manager.engine_set import EngineSet
from jupyter_sandbox.manager.events import Events
from jupyter_sandbox.manager.images import Images
from jupyter_sandbox.manager.memory_pressure import MemoryPressure
from jupyter_sandbox.manager.principals import Principal, one_person
from jupyter_sandbox.manager.records import Records
from jupyter_sandbox.manager.registry import Registry
from jupyter_sandbox.manager.services import Services
from jupyter_sandbox.manager.wanted import Wanted
from jupyter_sandbox.options import SandboxOptions

OWNER = "os:test"
ME = Principal(owner=OWNER, actor=OWNER, groups=())
PLACES = 2
"""Sandboxes that the machine has memory for, running or frozen."""
RETRY = 30.0
"""Seconds until the manager tries again what failed."""
PREFIX = "jsbs-"
"""How the directory of each run begins."""

IDS = st.sampled_from(["a", "b", "c", "d"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "sleep_after": st.sampled_from([10, 60]),
        "stop_after": st.sampled_from([20, 100]),
        "max_busy": st.sampled_from([30, 200]),
        "keep_alive": st.booleans(),
    },
)


@dataclass
class Model:
    """What one sandbox should be."""

    order: int
    state: str = "stopped"
    alive: bool = False
    variable: int | None = None
    busy: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    last_work: float = 0.0
    not_before: float = 0.0
    extended: float = 0.0
    slept: float = 0.0
    stop_not_before: float = 0.0
    contexts: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def option(self, name: str) -> Any:
        defaults = {"sleep_after": 600, "stop_after": 3600, "max_busy": 86400, "keep_alive": False}
        return self.options.get(name, defaults[name])

    def sleeps_at(self) -> float:
        return max(self.last_work + self.option("sleep_after"), self.not_before, self.extended)

    def stops_at(self) -> float:
        return max(self.slept + self.option("stop_after"), self.stop_not_before)

    def ends(self) -> None:
        self.alive, self.variable, self.busy = False, None, False
        self.not_before = self.extended = self.stop_not_before = 0.0
        self.lost = list(dict.fromkeys([*self.lost, *self.contexts]))
        self.contexts = []


class Lifecycle(RuleBasedStateMachine):
    """The rules; counts of what was done are added up in ``counts``."""

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.loop = LoopWithItsOwnClock()
        self.place = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        self.model: dict[str, Model] = {}
        self.faults: dict[str, str] = {}
        self.number = 0
        self.registry: Registry
        self.records: Records

    # --- the manager ---------------------------------------------------------------------------------------

    @initialize(options=st.lists(OPTIONS, min_size=3, max_size=3))
    def begin(self, options: list[dict[str, Any]]) -> None:
        self.run(self._begin())
        for name, given in zip("abc", options, strict=True):
            self.put(name, given)

    async def _begin(self) -> None:
        self.engine = EngineInOneLoop()
        await self._start()

    async def _start(self) -> None:
        self.records = Records(self.place / "records.sqlite")
        await self.records.open()

        async def choose(_: object) -> str:
            return "bubblewrap"

        services = Services(
            owner=OWNER,
            records=self.records,
            engines=EngineSet({"bubblewrap": lambda: self.engine}, choose, self.records),
            events=Events(),
            directory=self.place / "sandboxes",
            sockets=self.place,
            defaults=SandboxOptions(),
            memory=MemoryPressure(1, lambda: PLACES - len(self.engine.places)),
            principals=one_person(OWNER),
            images=Images(self.records),
        )
        self.registry = Registry(services)
        await self.registry.load()

    def actor(self, name: str) -> Actor | None:
        return self.registry._actors.get((OWNER, name))

    def run(self, work: Coroutine[Any, Any, Any]) -> str | None:
        """Run one operation and all that follows from it; the code of its error."""
        return self.loop.run_until_complete(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, Any]) -> str | None:
        code = None
        try:
            await work
        except SandboxError as exc:
            code = exc.code
        await self._settle()
        return code

    async def _settle(self) -> None:
        while True:
            for _ in range(10):
                await asyncio.sleep(0)
            tasks = {task for actor in self.registry.all() for task in actor._tasks._tasks}
            if not tasks:
                return
            await asyncio.wait(tasks)

    def done(self, name: str, got: str | None, expected: str | None) -> None:
        """Count an operation, let the model's own timers fire, and compare the answer."""
        self.counts[f"{name}: {got or 'ok'}"] += 1
        self._expire()
        assert got == expected, f"{name}: {got}, not {expected}"

    # --- rules ---------------------------------------------------------------------------------------------

    @rule(name=IDS, options=OPTIONS)
    def put(self, name: str, options: dict[str, Any]) -> None:
        async def put() -> None:
            wanted = Wanted(options=SandboxOptions(**options))
            actor = await self.registry.get_or_create(ME, name, wanted)
            self._map(name)
            await actor.running(wanted)

        self.done("put", self.run(put()), self._expect_put(name, options))

    def _map(self, name: str) -> None:
        """Faults are set by ID, and an engine knows lifetimes only."""
        actor = self.actor(name)
        if actor is not None and name in self.faults:
            self.engine.faults[actor.record.lifetime] = self.faults[name]

    def _expect_put(self, name: str, options: dict[str, Any]) -> str | None:
        one = self.model.get(name)
        if one is not None and one.state == "destroying":
            if self._fails(name, "destroy"):
                return "ENGINE_UNAVAILABLE"
            del self.model[name]
            one = None
        if one is None:
            self.number += 1
            one = self.model[name] = Model(self.number)
        if {**one.options, **options} != one.options:
            one.options.update(options)
            one.not_before = 0.0
        return self._expect_running(name, one)

    @rule(name=IDS, value=st.integers(0, 9))
    def work(self, name: str, value: int) -> None:
        async def work() -> None:
            actor = await self.registry.get(OWNER, name)
            async with actor.work() as link:
                assert (await link.status())["runtime"] == actor.record.runtime_id
                self.engine.places[actor.record.lifetime].variable = value

        one, got = self.model.get(name), self.run(work())
        expected = "SANDBOX_NOT_FOUND"
        if one is not None:
            expected = "SANDBOX_DESTROYED" if one.state == "destroying" else self._expect_running(name, one)
        if one is not None and expected is None:
            one.variable, one.last_work, one.not_before = value, self.loop.now, 0.0
        self.done("work", got, expected)

    @rule(name=IDS, context=st.sampled_from(["default", "other"]))
    def open_context(self, name: str, context: str) -> None:
        actor, one = self.actor(name), self.model.get(name)
        if actor is None or one is None:
            return
        got = self.run(actor.note_context(context))
        if one.state in ("running", "sleeping"):
            one.contexts = list(dict.fromkeys([*one.contexts, context]))
            one.lost = [other for other in one.lost if other != context]
        self.done("context", got, None)

    @rule(name=IDS)
    def look(self, name: str) -> None:
        async def look() -> None:
            with (await self.registry.get(OWNER, name)).looking() as link:
                await link.status()

        one = self.model.get(name)
        expected = "SANDBOX_NOT_FOUND" if one is None else None if one.state == "running" else "SANDBOX_ASLEEP"
        self.done("look", self.run(look()), expected)

    @rule(name=IDS, force=st.booleans())
    def sleep(self, name: str, force: bool) -> None:
        async def sleep() -> None:
            await (await self.registry.get(OWNER, name)).sleep(force=force)

        got, one = self.run(sleep()), self.model.get(name)
        expected = None if one is not None else "SANDBOX_NOT_FOUND"
        if one is not None and one.state == "running":
            expected = "SANDBOX_BUSY" if one.busy and not force else self._expect_freeze(name, one)
        self.done("sleep", got, expected)

    @rule(name=IDS, seconds=st.sampled_from([5, 50, 500]))
    def extend(self, name: str, seconds: int) -> None:
        async def extend() -> None:
            await (await self.registry.get(OWNER, name)).extend(seconds)

        got, one = self.run(extend()), self.model.get(name)
        expected = "SANDBOX_NOT_FOUND" if one is None else "SANDBOX_ASLEEP"
        if one is not None and one.state == "running":
            expected, one.extended = None, max(one.extended, self.loop.now + seconds)
        self.done("extend", got, expected)

    @rule(name=IDS)
    def destroy(self, name: str) -> None:
        got, one = self.run(self.registry.destroy(OWNER, name)), self.model.get(name)
        expected = None
        if one is not None and self._fails(name, "destroy"):
            one.state, expected = "destroying", "ENGINE_UNAVAILABLE"
        elif one is not None:
            del self.model[name]
            self.faults.pop(name, None)
        self.done("destroy", got, expected)

    @rule(seconds=st.sampled_from([1, 15, 40, 150, 1000]))
    def pass_time(self, seconds: int) -> None:
        self.loop.now += seconds
        self.done("time", self.run(asyncio.sleep(0)), None)

    @rule(name=IDS, busy=st.booleans())
    def become_busy_or_idle(self, name: str, busy: bool) -> None:
        one, actor = self.model.get(name), self.actor(name)
        if one is not None and one.state == "running" and actor is not None:
            one.busy = self.engine.places[actor.record.lifetime].busy = busy

    # --- faults --------------------------------------------------------------------------------------------

    @rule(name=IDS, step=st.sampled_from(["start", "freeze", "thaw", "stop", "destroy"]))
    def engine_fails_next_time(self, name: str, step: str) -> None:
        if name in self.model:
            self.faults[name] = step
            self._map(name)

    @rule(name=IDS)
    def runtime_ends_by_itself(self, name: str) -> None:
        one, actor = self.model.get(name), self.actor(name)
        if one is None or actor is None or one.state not in ("running", "sleeping"):
            return
        self.engine.kill(actor.record.lifetime)
        one.ends()
        one.state = "stopped"
        self.done("end", self.run(asyncio.sleep(0)), None)

    @precondition(lambda self: self.model)
    @rule(away=st.sampled_from([0, 15, 150]), dying=st.sets(IDS))
    def manager_is_killed_and_started_again(self, away: int, dying: set[str]) -> None:
        self.engine.faults.clear()
        self.faults.clear()
        self.run(self._restart(away, dying))
        for name, one in list(self.model.items()):
            if one.state == "destroying":
                del self.model[name]
            elif name in dying and one.alive:
                one.ends()
                one.state = "stopped"
            elif one.state == "running":
                one.last_work, one.not_before = self.loop.now, 0.0
            one.stop_not_before = 0.0
        self.done("restart", None, None)

    async def _restart(self, away: int, dying: set[str]) -> None:
        await self.registry.leave_all()
        await self.records.close()
        for actor in self.registry.all():
            if actor.record.id in dying and actor.state != "destroying":
                self.engine.kill(actor.record.lifetime)
        self.loop.now += away
        await self._start()

    # --- the model's own steps -----------------------------------------------------------------------------

    def _fails(self, name: str, step: str) -> bool:
        if self.faults.get(name) == step:
            del self.faults[name]
            return True
        return False

    def _expect_running(self, name: str, one: Model) -> str | None:
        if one.state == "running":
            one.last_work, one.not_before = self.loop.now, 0.0
            return None
        self._make_room(name)
        if one.state == "sleeping" and self._fails(name, "thaw"):
            return "ENGINE_UNAVAILABLE"
        if one.state != "sleeping":
            if self._fails(name, "start"):
                one.state = "failed"
                return "ENGINE_UNAVAILABLE"
            one.alive = True
        one.state, one.last_work, one.not_before, one.stop_not_before = "running", self.loop.now, 0.0, 0.0
        return None

    def _make_room(self, name: str) -> None:
        sleepers = [
            (one.slept, one.order, other)
            for other, one in self.model.items()
            if other != name and one.state == "sleeping" and not one.option("keep_alive")
        ]
        for _, _, other in sorted(sleepers):
            if sum(one.alive for one in self.model.values()) < PLACES:
                return
            self._stop(other)

    def _stop(self, name: str) -> bool:
        one = self.model[name]
        one.stop_not_before = 0.0
        if self._fails(name, "stop"):
            return False
        one.ends()
        one.state = "stopped"
        return True

    def _expect_freeze(self, name: str, one: Model) -> str | None:
        if self._fails(name, "freeze"):
            if self._fails(name, "thaw"):
                raise AssertionError("a sandbox has one fault at a time")
            return "ENGINE_UNAVAILABLE"
        one.state, one.slept, one.extended, one.not_before = "sleeping", self.loop.now, 0.0, 0.0
        return None

    def _expire(self) -> None:
        now = self.loop.now
        for name, one in self.model.items():
            if one.option("keep_alive"):
                continue
            if one.state == "sleeping" and now >= one.stops_at() and not self._stop(name):
                one.stop_not_before = now + RETRY
            if one.state == "running" and now >= one.sleeps_at():
                overdue = one.last_work + one.option("max_busy")
                if one.busy and now < overdue:
                    one.not_before = min(now + one.option("sleep_after"), overdue)
                elif self._expect_freeze(name, one) is not None and (now < overdue or not self._stop(name)):
                    one.not_before = now + max(RETRY, one.option("sleep_after"))

    # --- what must hold ------------------------------------------------------------------------------------

    @invariant()
    def the_manager_is_as_the_model_says(self) -> None:
        if not hasattr(self, "engine"):
            return
        actors = {actor.record.id: actor for actor in self.registry.all()}
        assert set(actors) == set(self.model)
        for name, actor in actors.items():
            self._compare(actor, self.model[name])

    def _compare(self, actor: Actor, one: Model) -> None:
        name = actor.record.id
        assert actor.state == one.state, name
        expected = {"frozen": one.state == "sleeping", "variable": one.variable} if one.alive else None
        if one.state != "destroying":
            assert facts(self.engine.places.get(actor.record.lifetime)) == expected, name
            assert (list(actor.record.contexts), list(actor.record.lost_contexts)) == (one.contexts, one.lost), name
        assert (actor.activity.in_flight, actor.opened.is_set()) == (0, one.state == "running")
        timed = not one.option("keep_alive")
        assert (actor.activity._timer is not None) == (timed and one.state == "running"), name
        assert (actor.rest._timer is not None) == (timed and one.state == "sleeping"), name
        if actor.activity._timer is not None:
            assert actor.activity._deadline() == one.sleeps_at(), name
        if actor.rest._timer is not None:
            assert actor.rest._timer.when() == one.stops_at(), name

    @invariant()
    def records_files_and_sockets_are_those_of_the_sandboxes(self) -> None:
        if not hasattr(self, "engine"):
            return
        lifetimes = {actor.record.lifetime: actor.state for actor in self.registry.all()}
        rows = {row.lifetime: row.state for row in self.loop.run_until_complete(self.records.all())}
        assert rows == lifetimes
        assert {path.name for path in (self.place / "sandboxes").glob("*")} == set(lifetimes)
        assert set(self.engine.places) <= set(lifetimes)
        assert len(list(self.place.glob("*.sock"))) == len(self.engine.places)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.run(self._end())
        self.loop.close()
        shutil.rmtree(self.place)

    async def _end(self) -> None:
        self.engine.faults.clear()
        for name in list(self.model):
            await self.registry.destroy(OWNER, name)
        assert self.engine.places == {}
        await self.records.close()
