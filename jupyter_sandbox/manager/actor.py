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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from ..errors import SandboxError, error
from ..models import ContextInfo, State, Usage
from ..options import SandboxOptions, merge
from .agent_link import AgentLink
from .door import Door
from .lifetime import Lifetime
from .own_tasks import OwnTasks
from .records import SandboxRecord
from .services import Services
from .step_feed import StepFeed
from .vigil import Vigil
from .wanted import Wanted, refuse_conflicts

log = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Starts that one request may cause; a sandbox that ends at once each time is an error."""


class Actor:
    """One sandbox: the only way to its :class:`~.lifetime.Lifetime`.

    Parameters
    ----------
    forget:
        Called when the sandbox is destroyed, before its ID may be used again.
    make_room:
        Called before it starts or wakes: frees memory where it is short.
    """

    def __init__(
        self,
        lifetime: Lifetime,
        services: Services,
        forget: Callable[[Actor], None],
        make_room: Callable[[], Awaitable[None]],
    ) -> None:
        self.lifetime = lifetime
        self.last_usage = Usage()
        self.last_contexts: tuple[ContextInfo, ...] = ()
        self.steps = StepFeed()
        self._services = services
        self._forget = forget
        self._make_room = make_room
        self._lock = asyncio.Lock()
        self._tasks = OwnTasks(lifetime.record.lifetime)
        self._door = Door(lifetime, services, self._tasks, self._fall_asleep, self._stop_rested)
        self.opened, self.activity, self.rest = self._door.opened, self._door.activity, self._door.rest
        self._vigil = Vigil(lifetime, self._lock, self._tasks, self._door.close)
        self._waking: asyncio.Task[AgentLink] | None = None
        self._destroying: asyncio.Task[None] | None = None
        self._adopting: asyncio.Task[None] | None = None

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

    @property
    def asleep_since(self) -> float | None:
        """When it fell asleep (the loop's clock), if it may be stopped for want of memory; else None."""
        return self.rest.since if self.rest.stoppable and self._is_left_alone else None

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
        """Make it run, which is work; all who ask at the same time share one start, and its failure.

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
                self.activity.touch()
                return self.lifetime.link
            await asyncio.shield(self._share_wake(wanted or Wanted()))
        if self.opened.is_set() and self.lifetime.link is not None:
            return self.lifetime.link
        raise error("AGENT_UNREACHABLE", f"The sandbox ends as soon as it has started: {self.record.previous_end}.")

    async def lost(self, link: AgentLink, *, refused: bool = False) -> SandboxError:
        """The error to give to who asked the agent at ``link`` in vain; see :meth:`.Vigil.lost`."""
        return await self._vigil.lost(link, refused=refused)

    async def thawed_again(self, link: AgentLink) -> None:
        """Undo it if somebody else froze the runtime of ``link``, which is running as far as we know."""
        await self._vigil.thaw(link)

    # --- operations -------------------------------------------------------------------------------------------

    async def configure(self, given: SandboxOptions, environment: SandboxOptions) -> None:
        """Keep what was given explicitly, and apply at once what can change at once; this is work.

        Raises
        ------
        Conflict
            ``OPTION_CONFLICT`` for an engine, image or network other than the sandbox has.
        """
        self.activity.touch()
        if given.to_json():
            refuse_conflicts(given, self.record)
            await self._tasks.run(self._configure(given, environment))

    async def sleep(self, *, force: bool) -> None:
        """Freeze it now; nothing happens where it is not running.

        Raises
        ------
        Conflict
            ``SANDBOX_BUSY`` if something runs or is in flight, unless ``force``.
        """
        await self._tasks.run(self._sleep(force=force))

    async def extend(self, seconds: float) -> None:
        """Do not let it sleep by itself for ``seconds`` from now on; nothing changes where it never would.

        Raises
        ------
        Conflict
            ``SANDBOX_ASLEEP`` unless it runs: there is no sleep to put off.
        """
        await self._tasks.run(self._extend(seconds))

    async def note_context(self, name: str) -> None:
        """Remember that it has a context of that name."""
        await self._tasks.run(self._note_context(name))

    async def give_memory_back(self, reason: str) -> None:
        """Stop it if it sleeps and nobody is about to wake it; files stay."""
        await self._tasks.run(self._give_memory_back(reason))

    async def stop(self, reason: str, grace: float) -> None:
        """End its runtime, interrupting a start; files stay."""
        await self._cancel_waking()
        await self._tasks.run(self._stop(reason, grace))

    async def destroy(self) -> None:
        """Remove all of it, from any state; all who ask at the same time share one destroy."""
        if self._destroying is None or (self._destroying.done() and not self._is_going):
            self._destroying = self._tasks.spawn(self._destroy())
        await asyncio.shield(self._destroying)

    def adopt(self, turn: asyncio.Semaphore) -> None:
        """Begin to find out what is left of it; :meth:`adopted` waits for the end."""
        self._adopting = self._tasks.spawn(self._adopt(turn))

    async def adopted(self) -> None:
        """Wait until the manager knows what is left of it from before its own start; tries again what failed."""
        if self._adopting is None:
            return
        if self._adopting.done() and (self._adopting.cancelled() or self._adopting.exception() is not None):
            self.adopt(asyncio.Semaphore())
        await asyncio.shield(self._adopting)

    async def leave(self) -> None:
        """Let go of the runtime without touching it; the next manager adopts it."""
        self._door.close()
        self._vigil.stop()
        self._tasks.cancel_all()
        if self.lifetime.link is not None:
            await self.lifetime.link.session.close()

    # --- inside -----------------------------------------------------------------------------------------------

    @property
    def _is_going(self) -> bool:
        task = self._destroying
        return task is not None and (not task.done() or (not task.cancelled() and task.exception() is None))

    def _share_wake(self, wanted: Wanted) -> asyncio.Task[AgentLink]:
        if self.state == "destroying":
            raise error("SANDBOX_DESTROYED")
        if self._waking is None or self._waking.done():
            self._waking = self._tasks.spawn(self._wake(wanted))
        return self._waking

    async def _wake(self, wanted: Wanted) -> AgentLink:
        try:
            if not self.opened.is_set():
                await self._make_room()
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
        options = self._services.options_of(self.record, wanted.environment)
        with self.steps.of_a_start() as progress:
            link = await self.lifetime.start(options, preload=wanted.preload, progress=progress)
        self._vigil.begin(link)
        self._door.open(wanted.environment)
        return link

    async def _thaw(self) -> AgentLink | None:
        try:
            link = await self.lifetime.thaw()
        except SandboxError:
            if await self.lifetime.is_alive():
                raise
            await self._vigil.bury()
            return None
        self._door.open()
        with suppress(SandboxError):  # It gets its environment at the next wake, or at its next start.
            await link.put_env(self._services.options_of(self.record).env)
        return link

    async def _configure(self, given: SandboxOptions, environment: SandboxOptions) -> None:
        async with self._lock:
            merged = merge(given, self.record.options)
            if merged == self.record.options:
                return
            before, self.record.options = self._services.options_of(self.record), merged
            await self.lifetime.save()
            options = self._services.options_of(self.record, environment)
            self._door.apply(options)
            if self.record.runtime is not None and options.limits != before.limits:
                await self.lifetime.engine.set_limits(self.record.runtime, options.limits)
            if self.opened.is_set() and self.lifetime.link is not None:
                await self.lifetime.link.put_env(options.env)

    async def _sleep(self, *, force: bool) -> None:
        async with self._lock:
            if self.opened.is_set():
                if not force and await self._is_busy():
                    doing = self.lifetime.link.doing if self.lifetime.link else ""
                    raise error("SANDBOX_BUSY", f"The sandbox {self.record.id!r} is busy{doing}.", id=self.record.id)
                await self._freeze()

    async def _extend(self, seconds: float) -> None:
        async with self._lock:
            if not self.opened.is_set():
                raise error("SANDBOX_ASLEEP", f"The sandbox {self.record.id!r} is {self.state}: wake it first.")
            self.activity.extend(seconds)
            self.record.extended_until = self.activity.extended_until
            await self.lifetime.save()

    async def _note_context(self, name: str) -> None:
        async with self._lock:
            if self.lifetime.link is not None:
                await self.lifetime.note_context(name)

    @property
    def _is_left_alone(self) -> bool:
        """Whether nothing is under way, and nobody waits for it to wake."""
        return not self.is_changing and (self._waking is None or self._waking.done()) and not self._is_going

    async def _stop_rested(self) -> None:
        if not self.rest.due:
            return
        if not self._is_left_alone:
            self.rest.postpone()
            return
        try:
            slept = self._services.options_of(self.record).stop_after
            await self._give_memory_back(f"it was asleep for longer than stop_after ({slept:g} s)")
        except Exception as exc:  # Whatever an engine raises: without another try it would keep its memory for ever.
            log.warning("%s: could not be stopped: %s", self.record.lifetime, exc)
            self.rest.postpone()

    async def _give_memory_back(self, reason: str) -> None:
        # Between this look and the lock nothing else runs: whoever wants to wake it now finds it stopped.
        if self.asleep_since is not None:
            await self._stop(reason, grace=0)

    async def _fall_asleep(self) -> None:
        async with self._lock:
            if not self.opened.is_set():
                return
            try:
                if self.activity.due and not self.activity.overdue and await self._is_busy():
                    self.activity.found_busy()
                elif self.activity.due:
                    await self._freeze()
                else:
                    self.activity.not_yet()
            except SandboxError as exc:
                log.warning("%s: could not be put to sleep: %s", self.record.lifetime, exc)
                await self._postpone()

    async def _postpone(self) -> None:
        """Try again later; what cannot be frozen when ``max_busy`` is over is stopped, lest it runs for ever."""
        if self.activity.overdue and await self.lifetime.is_alive():
            try:
                await self._stop_locked("it could not be put to sleep, and `max_busy` was over", grace=0)
                return
            except SandboxError as exc:
                log.warning("%s: could not be stopped either: %s", self.record.lifetime, exc)
        self.activity.postpone()

    async def _is_busy(self) -> bool:
        assert self.lifetime.link is not None, "asked only while it is open"
        return self.activity.in_flight > 0 or await self.lifetime.link.busy() or self.activity.in_flight > 0

    async def _freeze(self) -> None:
        self._door.close()
        try:
            await self.lifetime.freeze()
            self._door.sleep()
        except BaseException:
            if self.lifetime.link is not None and await self.lifetime.is_alive():
                self._door.reopen()
            raise

    async def _stop(self, reason: str, grace: float) -> None:
        async with self._lock:
            if self.record.runtime is not None:
                await self._stop_locked(reason, grace)

    async def _stop_locked(self, reason: str, grace: float) -> None:
        self._door.close()
        self._vigil.stop()
        try:
            await self.lifetime.stop(reason, grace)
        except BaseException:
            await self._take_up_again()
            raise

    async def _take_up_again(self) -> None:
        """It could not be stopped or destroyed: it goes on as it was, if there is anything left that goes on."""
        if self.lifetime.link is None:
            return
        self._vigil.begin(self.lifetime.link)
        if self.state == "sleeping":
            self._door.sleep()
        elif await self.lifetime.is_alive():
            self._door.reopen()

    async def _destroy(self) -> None:
        self._door.close()
        await self._cancel_waking()
        async with self._lock:
            self._vigil.stop()
            try:
                await self.lifetime.destroy()
            except BaseException:
                await self._take_up_again()
                raise
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
                self._vigil.begin(self.lifetime.link)
                self._door.adopt()
