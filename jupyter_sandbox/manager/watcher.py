"""Learns from the engine that a runtime has ended by itself, and why, even if the engine is down for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..engines.base import Ending
from ..errors import SandboxError

log = logging.getLogger(__name__)

_RETRY_WAIT = (1, 2, 4, 8, 16, 30)
"""Seconds between attempts to watch a runtime whose engine does not answer."""


class Watcher:
    """Watches one runtime from its start to its end.

    Parameters
    ----------
    wait:
        The engine's wait for this runtime.
    ended:
        Called with the reason, one phrase for a user, unless :meth:`stop` came first.
    """

    def __init__(self, wait: Callable[[], Awaitable[Ending]], ended: Callable[[str], None]) -> None:
        self._wait = wait
        self._task = asyncio.create_task(self._watch())
        self._task.add_done_callback(lambda task: None if task.cancelled() else ended(task.result()))

    async def reason(self, patience: float) -> str:
        """Why it ended, if the engine says so within ``patience`` seconds."""
        await asyncio.wait({self._task}, timeout=patience)
        done = self._task.done() and not self._task.cancelled()
        return self._task.result() if done else "it ended for a reason that is not known"

    def stop(self) -> None:
        """Do not watch any more; ``ended`` is not called."""
        self._task.cancel()

    async def _watch(self) -> str:
        attempt = 0
        while True:
            try:
                return (await self._wait()).text
            except SandboxError as exc:
                # The engine is down, which says nothing about the runtime; there is no event for its return.
                log.warning("A runtime cannot be watched: %s", exc)
            except Exception:  # An engine's own fault must not end the watch: it is logged, and tried again.
                log.exception("An engine raised something of its own while a runtime was watched")
            await asyncio.sleep(_RETRY_WAIT[min(attempt, len(_RETRY_WAIT) - 1)])
            attempt += 1
