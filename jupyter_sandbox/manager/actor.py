"""Who may do what with one sandbox, and when: one start for all who ask, nothing in flight under a freeze.

An actor lives as long as its lifetime. All that changes the sandbox runs in tasks of the actor's own, one at a time
(``_lock``), so that a caller who goes away leaves nothing half-done. Whether requests may pass is one event
(``opened``): it is set only while the agent can answer, and cleared before a freeze or a stop begins. Between the
look at it and the count of a request in flight nothing else runs, which makes the two one lock: shared for requests,
exclusive for what clears the event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

from ..errors import SandboxError, error
from ..models import ContextInfo, State, Usage
from ..options import SandboxOptions, merge
from .activity import Activity
from .agent_link import AgentLink
from .lifetime import Lifetime
from .records import SandboxRecord
from .services import Services
from .step_feed import StepFeed
from .wanted import Wanted, refuse_conflicts
from .watcher import Watcher

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_VERDICT = 1.0
"""Seconds that a broken connection waits for the engine to say why the runtime ended."""
_ATTEMPTS = 3
"""Starts that one request may cause; a sandbox that ends at once each time is an error."""


class Actor:
    """One sandbox: the only way to its :class:`~.lifetime.Lifetime`.

    Parameters
    ----------
    forget:
        Called when the sandbox is destroyed, before its ID may be used again.
    """

    def __init__(self, lifetime: Lifetime, services: Services, forget: Callable[[Actor], None]) -> None:
        self.lifetime = lifetime
        self.opened = asyncio.Event()
        self.activity = Activity(self._on_timer)
        self.activity.last_active_at = lifetime.record.last_active_at
        self.last_usage = Usage()
        self.last_contexts: tuple[ContextInfo, ...] = ()
        self.steps = StepFeed()
        self._services = services
        self._forget = forget
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waking: asyncio.Task[AgentLink] | None = None
        self._destroying: asyncio.Task[None] | None = None
        self._adopting: asyncio.Task[None] | None = None
        self._watcher: Watcher | None = None

    @property
    def record(self) -> SandboxRecord:
        """What the records say of it."""
        return self.lifetime.record

    @property
    def state(self) -> State:
        """Its state, as a user sees it: being destroyed hides all others."""
        return "destroying" if self._is_going else self.lifetime.state

    @property
    def in_memory(self) -> bool:
        """Whether it uses memory, or is about to."""
        return self.state in ("starting", "running", "sleeping", "destroying") or self.is_changing

    @property
    def is_changing(self) -> bool:
        """Whether a step is under way."""
        return self._lock.locked()

    # --- requests ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def work(self, link: AgentLink | None = None) -> AsyncIterator[AgentLink]:
        """Wake the sandbox, then count as work in flight; ``link``: only if that runtime is still the one."""
        current = await self.running(link=link)
        with self.activity.working():
            yield current

    @contextmanager
    def looking(self) -> Iterator[AgentLink]:
        """Be in flight without waking it.

        Raises
        ------
        Conflict
            ``SANDBOX_ASLEEP`` unless its agent can answer right now.
        """
        if not self.opened.is_set() or self.lifetime.link is None:
            raise error("SANDBOX_ASLEEP", f"The sandbox {self.record.id!r} is {self.state}; looking does not wake it.")
        with self.activity.looking():
            yield self.lifetime.link

    async def settled(self) -> None:
        """Wait until no start is under way, however it ends."""
        if self._waking is not None:
            await asyncio.wait({self._waking})

    async def running(self, wanted: Wanted | None = None, *, link: AgentLink | None = None) -> AgentLink:
        """Make it run; all who ask at the same time share one start, and its failure.

        Raises
        ------
        SandboxError
            Why it cannot run; ``STALE_HANDLE`` if ``link`` is given and that runtime is over,
            ``SANDBOX_DESTROYED`` if it was destroyed meanwhile.
        """
        for _ in range(_ATTEMPTS):
            if link is not None and self.lifetime.link is not link:
                raise error("STALE_HANDLE")
            if self.opened.is_set() and self.lifetime.link is not None:
                return self.lifetime.link
            await asyncio.shield(self._share_wake(wanted or Wanted()))
        if self.opened.is_set() and self.lifetime.link is not None:
            return self.lifetime.link
        raise error("AGENT_UNREACHABLE", f"The sandbox ends as soon as it has started: {self.record.previous_end}.")

    async def lost(self, link: AgentLink, *, refused: bool = False) -> SandboxError:
        """Find out why the agent at ``link`` did not answer; the error to give to who asked it.

        Parameters
        ----------
        refused:
            Nothing listens there any more, so that the runtime is of no use even if it lives: it is stopped, and
            the next work starts another one.
        """
        if not refused:
            await asyncio.wait({link.over}, timeout=_VERDICT)
        if not link.over.done():
            await self._own(self._judge(link, refused=refused))
        if link.over.done():
            return error("AGENT_UNREACHABLE", f"The sandbox ended: {link.over.result().text}.")
        return error("AGENT_UNREACHABLE", "The sandbox runs, but does not answer.", remedy="Try again, or destroy it.")

    # --- operations -------------------------------------------------------------------------------------------

    async def configure(self, given: SandboxOptions, environment: SandboxOptions) -> None:
        """Keep what was given explicitly, and apply at once what can change at once.

        Raises
        ------
        Conflict
            ``OPTION_CONFLICT`` for an engine, image or network other than the sandbox has.
        """
        if given.to_json():
            refuse_conflicts(given, self.record)
            await self._own(self._configure(given, environment))

    async def sleep(self, *, force: bool) -> None:
        """Freeze it now; nothing happens where it is not running.

        Raises
        ------
        Conflict
            ``SANDBOX_BUSY`` if something runs or is in flight, unless ``force``.
        """
        await self._own(self._sleep(force=force))

    async def stop(self, reason: str, grace: float) -> None:
        """End its runtime, interrupting a start; files stay."""
        await self._cancel_waking()
        await self._own(self._stop(reason, grace))

    async def destroy(self) -> None:
        """Remove all of it, from any state; all who ask at the same time share one destroy."""
        if self._destroying is None or (self._destroying.done() and not self._is_going):
            self._destroying = self._spawn(self._destroy())
        await asyncio.shield(self._destroying)

    def adopt(self, turn: asyncio.Semaphore) -> None:
        """Begin to find out what is left of it; :meth:`adopted` waits for the end."""
        self._adopting = self._spawn(self._adopt(turn))

    async def adopted(self) -> None:
        """Wait until the manager knows what is left of it from before its own start; tries again what failed."""
        if self._adopting is None:
            return
        if self._adopting.done() and (self._adopting.cancelled() or self._adopting.exception() is not None):
            self.adopt(asyncio.Semaphore())
        await asyncio.shield(self._adopting)

    async def leave(self) -> None:
        """Let go of the runtime without touching it; the next manager adopts it."""
        self._close()
        self._unwatch()
        for task in list(self._tasks):
            task.cancel()
        if self.lifetime.link is not None:
            await self.lifetime.link.session.close()

    # --- inside -----------------------------------------------------------------------------------------------

    @property
    def _is_going(self) -> bool:
        task = self._destroying
        return task is not None and (not task.done() or (not task.cancelled() and task.exception() is None))

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None and not isinstance(exc, SandboxError):
            log.error("%s: a step failed", self.record.lifetime, exc_info=exc)

    async def _own(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` to its end even if the caller goes away."""
        return await asyncio.shield(self._spawn(work))

    def _share_wake(self, wanted: Wanted) -> asyncio.Task[AgentLink]:
        if self.state == "destroying":
            raise error("SANDBOX_DESTROYED")
        if self._waking is None or self._waking.done():
            self._waking = self._spawn(self._wake(wanted))
        return self._waking

    async def _wake(self, wanted: Wanted) -> AgentLink:
        try:
            async with self._lock:
                return await self._wake_locked(wanted)
        except asyncio.CancelledError:
            # Only destroy and stop cancel a wake; those who share it must not take it for their own cancellation.
            raise error("SANDBOX_DESTROYED" if self._is_going else "MANAGER_UNAVAILABLE") from None

    async def _wake_locked(self, wanted: Wanted) -> AgentLink:
        if self.state == "sleeping" and (link := await self._thaw()) is not None:
            return link
        if self.opened.is_set() and self.lifetime.link is not None:
            return self.lifetime.link
        options = self._services.resolve(self.record.options, wanted.environment)
        with self.steps.of_a_start() as progress:
            link = await self.lifetime.start(options, preload=wanted.preload, progress=progress)
        self._watch(link)
        self._open(wanted.environment)
        return link

    async def _thaw(self) -> AgentLink | None:
        try:
            link = await self.lifetime.thaw()
        except SandboxError:
            if await self.lifetime.is_alive():
                raise
            await self._end(await self._reason())
            return None
        self._open()
        with suppress(SandboxError):  # It gets its environment at the next wake, or at its next start.
            await link.put_env(self._services.resolve(self.record.options).env)
        return link

    def _open(self, environment: SandboxOptions | None = None) -> None:
        self.activity.configure(self._services.resolve(self.record.options, environment or SandboxOptions()))
        self.activity.wake()
        self.opened.set()

    def _close(self) -> None:
        self.opened.clear()
        self.activity.rest()
        self.record.last_active_at = self.activity.last_active_at

    async def _configure(self, given: SandboxOptions, environment: SandboxOptions) -> None:
        async with self._lock:
            merged = merge(given, self.record.options)
            if merged == self.record.options:
                return
            before, self.record.options = self._services.resolve(self.record.options), merged
            await self.lifetime.save()
            options = self._services.resolve(merged, environment)
            self.activity.configure(options)
            if self.record.runtime is not None and options.limits != before.limits:
                await self.lifetime.engine.set_limits(self.record.runtime, options.limits)
            if self.opened.is_set() and self.lifetime.link is not None:
                await self.lifetime.link.put_env(options.env)

    async def _sleep(self, *, force: bool) -> None:
        async with self._lock:
            if self.opened.is_set():
                if not force and await self._is_busy():
                    raise error("SANDBOX_BUSY", f"The sandbox {self.record.id!r} is busy.", id=self.record.id)
                await self._freeze()

    def _on_timer(self) -> None:
        self._spawn(self._fall_asleep())

    async def _fall_asleep(self) -> None:
        async with self._lock:
            if not self.opened.is_set() or not self.activity.due:
                return
            try:
                if not self.activity.overdue and await self._is_busy():
                    self.activity.found_busy()
                elif self.activity.due:
                    await self._freeze()
            except SandboxError as exc:
                log.warning("%s: could not be put to sleep: %s", self.record.lifetime, exc)
                await self._postpone()

    async def _postpone(self) -> None:
        """Try again later; what cannot be frozen when ``max_busy`` is over is stopped, lest it runs for ever."""
        if self.activity.overdue and await self.lifetime.is_alive():
            await self._stop_locked("it could not be put to sleep, and `max_busy` was over", grace=0)
        else:
            self.activity.postpone()

    async def _is_busy(self) -> bool:
        assert self.lifetime.link is not None, "asked only while it is open"
        return self.activity.in_flight > 0 or await self.lifetime.link.busy() or self.activity.in_flight > 0

    async def _freeze(self) -> None:
        self._close()
        try:
            await self.lifetime.freeze()
        except BaseException:
            if self.lifetime.link is not None and await self.lifetime.is_alive():
                self.activity.go_on()
                self.opened.set()
            raise

    async def _stop(self, reason: str, grace: float) -> None:
        async with self._lock:
            if self.record.runtime is not None:
                await self._stop_locked(reason, grace)

    async def _stop_locked(self, reason: str, grace: float) -> None:
        self._close()
        self._unwatch()
        await self.lifetime.stop(reason, grace)

    async def _destroy(self) -> None:
        self._close()
        await self._cancel_waking()
        async with self._lock:
            self._unwatch()
            await self.lifetime.destroy()
            self._forget(self)

    async def _cancel_waking(self) -> None:
        if self._waking is not None and not self._waking.done():
            self._waking.cancel()
            await asyncio.wait({self._waking})

    async def _adopt(self, turn: asyncio.Semaphore) -> None:
        async with turn, self._lock:
            await self.lifetime.adopt()
            if self.state == "absent":
                self._forget(self)
            elif self.state == "starting":
                await self._wake_locked(Wanted())
            elif self.lifetime.link is not None:
                self._watch(self.lifetime.link)
                if self.state == "running":
                    self._open()

    # --- the end of a runtime ---------------------------------------------------------------------------------

    def _watch(self, link: AgentLink) -> None:
        self._watcher = Watcher(self.lifetime.wait, lambda text: self._ended_by_itself(link, text))

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None

    def _ended_by_itself(self, link: AgentLink, text: str) -> None:
        self._spawn(self._note_end(link, text))

    async def _note_end(self, link: AgentLink, text: str) -> None:
        async with self._lock:
            if self.lifetime.link is link:
                await self._end(text)

    async def _judge(self, link: AgentLink, *, refused: bool) -> None:
        async with self._lock:
            if self.lifetime.link is not link:
                return
            if not await self.lifetime.is_alive():
                await self._end(await self._reason())
            elif refused:
                await self._stop_locked("its agent could not be reached any more", grace=0)

    async def _reason(self) -> str:
        return await self._watcher.reason(_VERDICT) if self._watcher else "it ended unwatched"

    async def _end(self, text: str) -> None:
        self._close()
        self._unwatch()
        log.info("%s: its runtime is over: %s", self.record.lifetime, text)
        await self.lifetime.ended(text)
