"""When a sandbox last worked and when it may sleep: one timer per sandbox, no polling.

All times are those of the event loop's monotonic clock, so that setting the computer's clock neither puts a
sandbox to sleep nor keeps it awake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from ..options import ResolvedOptions


class Activity:
    """The activity of one running sandbox.

    Parameters
    ----------
    expired:
        Called, from the event loop, when ``sleep_after`` has passed since the last work. It decides what follows:
        it puts the sandbox to sleep, or calls :meth:`found_busy`, :meth:`not_yet` or :meth:`postpone`.
    """

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._options = ResolvedOptions()
        self._last_work = self._loop.time()
        self._not_before = 0.0
        self.extended_until: float | None = None
        self._working = 0
        self._looking = 0
        self._awake = False
        self.last_active_at = datetime.now(UTC)

    def configure(self, options: ResolvedOptions) -> None:
        """Apply ``sleep_after``, ``max_busy`` and ``keep_alive`` at once."""
        self._options = options
        self._not_before = 0.0
        self._arm()

    def wake(self, extended_until: float | None = None) -> None:
        """The sandbox runs from now on; this counts as work. ``extended_until``: see :meth:`extend`."""
        self._awake = True
        self.extended_until = extended_until
        self.touch()
        self._arm()

    def go_on(self) -> None:
        """It was to rest, and could not: it runs on, which is no work."""
        self._awake = True
        self._arm()

    def adopt(self, extended_until: float | None) -> None:
        """The sandbox runs already. When it last worked is not known: it gets all of ``sleep_after``, once."""
        last_active_at = self.last_active_at
        self.wake(extended_until)
        self.last_active_at = last_active_at

    def rest(self) -> None:
        """The sandbox does not run any more: no timer is needed."""
        self._awake = False
        self._disarm()

    def extend(self, seconds: float) -> None:
        """Do not let it sleep by itself for that long from now on; never brings its sleep nearer."""
        self.extended_until = max(self.extended_until or 0.0, self._loop.time() + seconds)
        self._arm()

    def touch(self) -> None:
        """Work, just now."""
        # Called for every frame of work: it moves two numbers, and the timer finds out when it fires.
        self._last_work = self._loop.time()
        self._not_before = 0.0
        self.last_active_at = datetime.now(UTC)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work is in flight: both its beginning and its end count."""
        self.touch()
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            self.touch()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Looking is in flight: nothing may freeze under it, but it counts as nothing."""
        self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1

    @property
    def in_flight(self) -> int:
        """Requests that are being answered right now."""
        return self._working + self._looking

    @property
    def overdue(self) -> bool:
        """Whether ``max_busy`` has passed since the last work began or ended: being busy is no excuse then."""
        return self._loop.time() >= self._last_work + self._options.max_busy

    @property
    def due(self) -> bool:
        """Whether the sandbox may sleep now, as far as time is concerned."""
        return self._awake and not self._options.keep_alive and self._loop.time() >= self._deadline()

    def found_busy(self) -> None:
        """The agent said that something runs: ask again after ``sleep_after``, or when ``max_busy`` is over."""
        self._not_before = min(self._loop.time() + self._options.sleep_after, self._last_work + self._options.max_busy)
        self._arm()

    def not_yet(self) -> None:
        """It has worked since the timer fired: the timer has to run again."""
        self._arm()

    def postpone(self) -> None:
        """It could not be put to sleep: try again after ``sleep_after``, at the earliest in half a minute."""
        self._not_before = self._loop.time() + max(30.0, self._options.sleep_after)
        self._arm()

    def sleeps_at(self) -> datetime | None:
        """When it will sleep if nothing happens; None where no timer runs."""
        if not self._awake or self._options.keep_alive:
            return None
        now = self._loop.time()
        soonest = max(now + self._options.sleep_after, self.extended_until or 0.0)
        left = (soonest if self._working else self._deadline()) - now
        return datetime.now(UTC) + timedelta(seconds=max(0.0, left))

    def _deadline(self) -> float:
        patience = self._options.max_busy if self._working else self._options.sleep_after
        return max(self._last_work + patience, self._not_before, self.extended_until or 0.0)

    def _arm(self) -> None:
        self._disarm()
        if self._awake and not self._options.keep_alive:
            # Work that ends brings the deadline nearer, but never nearer than this.
            soonest = max(self._loop.time() + self._options.sleep_after, self.extended_until or 0.0)
            self._timer = self._loop.call_at(min(self._deadline(), soonest), self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        if self.due:
            self._expired()
        else:
            self._arm()
