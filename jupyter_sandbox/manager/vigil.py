"""Sees to the end of a runtime that ends by itself: notices it, finds out why, and has it recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..errors import SandboxError, error
from .agent_link import AgentLink
from .lifetime import Lifetime
from .own_tasks import OwnTasks
from .watcher import Watcher

log = logging.getLogger(__name__)

_VERDICT = 1.0
"""Seconds that a broken connection waits for the engine to say why the runtime ended."""


class Vigil:
    """The watch over the runtimes of one sandbox, one after the other.

    Parameters
    ----------
    lock:
        Held by whoever changes the sandbox.
    close:
        Lets no more requests pass; called before a runtime is recorded as ended.
    """

    def __init__(self, lifetime: Lifetime, lock: asyncio.Lock, tasks: OwnTasks, close: Callable[[], None]) -> None:
        self._lifetime = lifetime
        self._lock = lock
        self._tasks = tasks
        self._close = close
        self._watcher: Watcher | None = None

    def begin(self, link: AgentLink) -> None:
        """Watch the runtime of ``link``."""
        self._watcher = Watcher(self._lifetime.wait, lambda text: self._ended_by_itself(link, text))

    def stop(self) -> None:
        """Do not watch any more."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None

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
            await self._tasks.run(self._judge(link, refused=refused))
        if link.over.done():
            return error("AGENT_UNREACHABLE", f"The sandbox ended: {link.over.result().text}.")
        return error("AGENT_UNREACHABLE", "The sandbox runs, but does not answer.", remedy="Try again, or destroy it.")

    async def thaw(self, link: AgentLink) -> None:
        """Undo what somebody else froze, if the runtime of ``link`` is the one that runs; an error is only logged."""
        await self._tasks.run(self._thaw(link))

    async def bury(self) -> None:
        """Record that the runtime is over, with the reason; the lock is held, and the engine has said that it is."""
        await self._end(await self._reason())

    def _ended_by_itself(self, link: AgentLink, text: str) -> None:
        self._tasks.spawn(self._note_end(link, text))

    async def _note_end(self, link: AgentLink, text: str) -> None:
        async with self._lock:
            if self._lifetime.link is link:
                await self._end(text)

    async def _thaw(self, link: AgentLink) -> None:
        async with self._lock:
            if self._lifetime.link is link and self._lifetime.state == "running":
                try:
                    await self._lifetime.engine.thaw(link.runtime)
                except SandboxError as exc:
                    log.info("%s: does not answer, and cannot be thawed: %s", self._lifetime.record.lifetime, exc)

    async def _judge(self, link: AgentLink, *, refused: bool) -> None:
        async with self._lock:
            if self._lifetime.link is not link:
                return
            if not await self._lifetime.is_alive():
                await self.bury()
            elif refused:
                self._close()
                self.stop()
                await self._lifetime.stop("its agent could not be reached any more", grace=0)

    async def _reason(self) -> str:
        return await self._watcher.reason(_VERDICT) if self._watcher else "it ended unwatched"

    async def _end(self, text: str) -> None:
        self._close()
        self.stop()
        log.info("%s: its runtime is over: %s", self._lifetime.record.lifetime, text)
        await self._lifetime.ended(text)
