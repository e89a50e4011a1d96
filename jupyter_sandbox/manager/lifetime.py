"""The steps that change one sandbox: create, start, freeze, thaw, stop, destroy; each is recorded.

A lifetime knows nothing of who asks, of timers or of requests in flight: its :class:`~.actor.Actor` sees to it that
only one step runs at a time, and when.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

from ..engines.base import Ending, Engine, Progress, Runtime, StartSpec
from ..errors import SandboxError, error
from ..ids import opaque
from ..models import State
from ..options import ResolvedOptions
from .agent_link import DESTROYED, STOPPED, AgentLink, Over
from .records import SandboxRecord
from .services import Services

log = logging.getLogger(__name__)

_START_SLACK = 5.0
"""Seconds that an engine may be late with its own timeout before it is interrupted."""
_CONTEXTS = 100
"""Contexts whose loss is remembered."""


class Lifetime:
    """One existence of one sandbox, from creation to destroy.

    ``link`` is there while a runtime is in memory, running or frozen.
    """

    def __init__(self, record: SandboxRecord, services: Services) -> None:
        self.record = record
        self.link: AgentLink | None = None
        self._services = services
        self.directory = services.directory / record.lifetime

    @property
    def engine(self) -> Engine:
        """The engine that was chosen at creation, for good."""
        return self._services.engines.get(self.record.engine)

    @property
    def state(self) -> State:
        """The state as recorded."""
        return self.record.state

    async def create(self) -> None:
        """Record the sandbox, then make its directory."""
        await self._enter("stopped")
        self._reached("create:recorded")
        self._make_directory()
        self._reached("create:directory")

    async def start(self, options: ResolvedOptions, *, preload: bool, progress: Progress) -> AgentLink:
        """Start a runtime; afterwards the state is ``running``, or ``failed`` if it raises.

        Raises
        ------
        SandboxError
            What the engine says, ``START_TIMEOUT`` or ``START_FAILED``. Nothing of the runtime is left then.
        """
        self._make_directory()
        self.record.runtime_id = opaque()
        await self._enter("starting")
        self._reached("start:recorded")
        runtime = await self._run_start(self._spec(options, preload), progress)
        self._reached("start:engine")
        self.record.runtime = runtime
        self.record.starts += 1
        self.record.failure = None
        link = self._connect(runtime)
        link.env = dict(options.env)
        try:
            await self._enter("running")
        except BaseException:
            await self._undo_start(runtime)
            raise
        self._reached("start:done")
        return link

    async def _undo_start(self, runtime: Runtime) -> None:
        """End a runtime that could not be recorded: no next manager would know of it."""
        self.record.runtime = self.record.runtime_id = None
        self.record.starts -= 1
        self.record.state = "stopped" if self.record.starts else "failed"
        await self._disconnect(Over(STOPPED, "its start could not be recorded"))
        await self.engine.stop(runtime, 0)

    async def freeze(self) -> None:
        """Freeze the runtime and record it as ``sleeping``; whatever fails, it is thawed again."""
        extended_until = self.record.extended_until
        try:
            await self.engine.freeze(self._runtime)
            self._reached("freeze:engine")
            self.record.extended_until, self.record.asleep_since = None, asyncio.get_running_loop().time()
            await self._enter("sleeping")
        except BaseException:
            self.record.extended_until, self.record.asleep_since = extended_until, None
            await self.engine.thaw(self._runtime)
            raise
        self._reached("freeze:done")

    async def thaw(self) -> AgentLink:
        """Thaw the runtime and record it as ``running``."""
        await self.engine.thaw(self._runtime)
        self._reached("thaw:engine")
        self.record.asleep_since = None
        await self._enter("running")
        self._reached("thaw:done")
        assert self.link is not None, "what is frozen has a link"
        return self.link

    async def stop(self, reason: str, grace: float) -> None:
        """End the runtime, if there is one; files stay. ``reason`` is one phrase for a user."""
        if self.record.runtime is not None:
            await self.engine.stop(self.record.runtime, grace)
            self._reached("stop:engine")
        await self.ended(reason)

    async def ended(self, reason: str) -> None:
        """Record that the runtime is over, and tell who is connected to it."""
        self._remove_socket()
        self.record.previous_end = reason
        self.record.runtime = None
        self.record.runtime_id = None
        self.record.asleep_since = self.record.extended_until = None
        self._lose_contexts()
        await self._disconnect(Over(STOPPED, reason))
        try:
            await self._enter("stopped")
        except SandboxError as exc:
            # It is over, whether that can be written or not; a next manager finds the same out for itself.
            log.warning("%s: its end could not be recorded: %s", self.record.lifetime, exc)
            self.record.state = "stopped"
            self.announce()
        self._reached("stop:done")

    async def note_context(self, name: str) -> None:
        """Record that a context of that name exists now, so that its loss can be told later."""
        record = self.record
        if name in record.contexts and name not in record.lost_contexts:
            return
        if len(record.contexts) < _CONTEXTS:
            record.contexts = (*record.contexts, name)
        record.lost_contexts = tuple(other for other in record.lost_contexts if other != name)
        await self._services.records.save(record)

    def _lose_contexts(self) -> None:
        lost = dict.fromkeys((*self.record.lost_contexts, *self.record.contexts))
        self.record.contexts, self.record.lost_contexts = (), tuple(lost)[-_CONTEXTS:]

    async def destroy(self) -> None:
        """Remove everything: runtime, engine objects, files, record. Can be repeated after a failure."""
        await self._enter("destroying")
        self._reached("destroy:recorded")
        await self._disconnect(Over(DESTROYED, "it was destroyed"))
        await self.engine.destroy(self.record.lifetime, self.directory)
        self._reached("destroy:engine")
        self._remove_socket()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)
        await self._services.records.delete(self.record.lifetime)
        self.record.state = "absent"
        self.announce()

    async def adopt(self) -> None:
        """Find out what is left of this lifetime after the former manager went, and make the record true again.

        A first start that was cut short is rolled back whole, a destroy is finished. A later start must not be
        rolled back so, because the lifetime has files: its state stays ``starting``, and the actor starts it again,
        which ends whatever the first attempt may have left.
        """
        if self.state == "destroying" or (self.state == "starting" and self.record.starts == 0):
            await self.destroy()
        elif self.record.runtime is not None:
            await self._adopt_runtime(self.record.runtime)

    async def is_alive(self) -> bool:
        """Whether the runtime exists. An engine that cannot tell is not a reason to give it up."""
        try:
            return self.record.runtime is not None and await self.engine.is_alive(self.record.runtime)
        except SandboxError as exc:
            log.warning("%s: cannot tell whether it is alive: %s", self.record.lifetime, exc)
            return True

    async def wait(self) -> Ending:
        """Return when the runtime has ended by itself."""
        return await self.engine.wait(self._runtime)

    async def save(self) -> None:
        """Record what was changed without a change of state, and tell who listens."""
        await self._services.records.save(self.record)
        self.announce()

    def announce(self) -> None:
        """Tell who listens that something is different now."""
        self._services.events.changed(self.record.owner, self.record.id, self.record.state)

    @property
    def _runtime(self) -> Runtime:
        assert self.record.runtime is not None, "only a sandbox in memory has a runtime"
        return self.record.runtime

    def _reached(self, step: str) -> None:
        self._services.reached(step)

    def _make_directory(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def _enter(self, state: State) -> None:
        before, self.record.state = self.record.state, state
        try:
            await self._services.records.save(self.record)
        except BaseException:
            self.record.state = before
            raise
        log.info("%s: %s, was %s", self.record.lifetime, state, before)
        self.announce()

    def _spec(self, options: ResolvedOptions, preload: bool) -> StartSpec:
        record, timeouts = self.record, options.container_timeouts
        assert record.runtime_id is not None, "start() has just set it"
        handoff: dict[str, Any] = {
            "runtime": record.runtime_id,
            "env": dict(options.env),
            "pids": None,
            "memory": None,
            "preload": preload,
        }
        return StartSpec(
            installation=self._services.records.installation,
            lifetime=record.lifetime,
            runtime=record.runtime_id,
            handoff=handoff,
            directory=self.directory,
            sockets=self._services.sockets,
            limits=options.limits,
            network=record.network,
            image=record.image_id or record.image,
            interpreter=record.interpreter,
            timeout=(timeouts.instance_get_timeout_ms + timeouts.port_ready_timeout_ms) / 1000,
        )

    async def _run_start(self, spec: StartSpec, progress: Progress) -> Runtime:
        try:
            async with asyncio.timeout(spec.timeout + _START_SLACK):
                return await self.engine.start(spec, progress)
        except BaseException as exc:
            failure = _as_start_error(exc, spec.timeout)
            self.record.runtime_id = None
            self.record.failure = str(failure) if isinstance(failure, SandboxError) else None
            await self._enter("failed" if self.record.failure else "stopped")
            if failure is exc:
                raise
            raise failure from exc

    def _connect(self, runtime: Runtime) -> AgentLink:
        self.link = AgentLink(runtime)
        return self.link

    def _remove_socket(self) -> None:
        # A runtime that ended by itself, or by a destroy, has left it in our private directory.
        if self.record.runtime is not None:
            Path(self.record.runtime.socket).unlink(missing_ok=True)

    async def _disconnect(self, over: Over) -> None:
        link, self.link = self.link, None
        if link is not None:
            await link.close(over)

    async def _adopt_runtime(self, runtime: Runtime) -> None:
        if not await self.is_alive():
            await self.ended("it ended while no manager was running")
            return
        self._connect(runtime)
        # The former manager may have died between doing and recording; both are idempotent.
        if self.state == "sleeping":
            await self.engine.freeze(runtime)
        else:
            await self.engine.thaw(runtime)


def _as_start_error(exc: BaseException, timeout: float) -> BaseException:
    if isinstance(exc, TimeoutError) and not isinstance(exc, SandboxError):
        return error("START_TIMEOUT", f"The sandbox did not start within {timeout:.0f} seconds.")
    if isinstance(exc, (SandboxError, asyncio.CancelledError)):
        return exc
    log.exception("An engine raised something of its own at a start", exc_info=exc)
    return error("START_FAILED", f"The sandbox could not be started: {exc or type(exc).__name__}")
