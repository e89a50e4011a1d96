"""Since when a sandbox sleeps, and when that was long enough to stop it: the counterpart of :mod:`.activity`.

Times are those of the event loop's clock, which on Linux is the machine's one monotonic clock: setting the computer's
clock changes nothing, and because a frozen runtime cannot outlive a boot, the time at which it fell asleep still means
the same to the next manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..options import ResolvedOptions

_PATIENCE = 30.0
"""Seconds until a stop that failed is tried again."""


class Rest:
    """The sleep of one sandbox.

    Parameters
    ----------
    expired:
        Called, from the event loop, when ``stop_after`` has passed since it fell asleep. It stops the sandbox, or
        calls :meth:`postpone`.
    """

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._options = ResolvedOptions()
        self._not_before = 0.0
        self.since: float | None = None

    def configure(self, options: ResolvedOptions) -> None:
        """Apply ``stop_after`` and ``keep_alive`` at once."""
        self._options = options
        self._arm()

    def begin(self, since: float | None) -> None:
        """It sleeps, since that time of the loop's clock; a time that is not known, or not yet come, is now."""
        now = self._loop.time()
        self.since = now if since is None else min(since, now)
        self._arm()

    def end(self) -> None:
        """It sleeps no more."""
        self.since = None
        self._not_before = 0.0
        self._arm()

    @property
    def stoppable(self) -> bool:
        """Whether it may be stopped by itself, by time or for want of memory: it sleeps, and is not kept alive."""
        return self.since is not None and not self._options.keep_alive

    @property
    def due(self) -> bool:
        """Whether it has slept long enough to be stopped."""
        return self.stoppable and self._loop.time() >= self._deadline()

    def postpone(self) -> None:
        """It could not be stopped: try again a while later."""
        self._not_before = self._loop.time() + _PATIENCE
        self._arm()

    def _deadline(self) -> float:
        return max((self.since or 0.0) + self._options.stop_after, self._not_before)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.stoppable:
            self._timer = self._loop.call_at(self._deadline(), self._expired)
