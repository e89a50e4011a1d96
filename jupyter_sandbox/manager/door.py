"""Whether requests may pass to a sandbox, and its two timers: one runs while it is open, one while it sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..options import ResolvedOptions, SandboxOptions
from .activity import Activity
from .lifetime import Lifetime
from .own_tasks import OwnTasks
from .rest import Rest
from .services import Services

Step = Callable[[], Coroutine[Any, Any, None]]


class Door:
    """The door of one sandbox; the lock of its actor is held by whoever moves it.

    Parameters
    ----------
    idle, rested:
        What follows when a timer has expired, as a task of ``tasks``; see :class:`.Activity` and :class:`.Rest`.
    """

    def __init__(self, lifetime: Lifetime, services: Services, tasks: OwnTasks, idle: Step, rested: Step) -> None:
        self.opened = asyncio.Event()
        self.activity = Activity(lambda: _begin(tasks, idle))
        self.activity.last_active_at = lifetime.record.last_active_at
        self.rest = Rest(lambda: _begin(tasks, rested))
        self._record = lifetime.record
        self._services = services

    def open(self, environment: SandboxOptions | None = None) -> None:
        """The agent answers from now on; this counts as work."""
        self.apply(self._services.options_of(self._record, environment or SandboxOptions()))
        self.rest.end()
        self.activity.wake(self._record.extended_until)
        self.opened.set()

    def reopen(self) -> None:
        """It was to rest or to end, and could not: it goes on, which is no work."""
        self.rest.end()
        self.activity.go_on()
        self.opened.set()

    def close(self) -> None:
        """No more requests pass: a freeze, or the end of the runtime, begins."""
        self.opened.clear()
        self.activity.rest()
        self.rest.end()
        self._record.last_active_at = self.activity.last_active_at

    def sleep(self) -> None:
        """It is frozen, since the time that the record says."""
        self.rest.begin(self._record.asleep_since)

    def apply(self, options: ResolvedOptions) -> None:
        """Apply the options that timers depend on, at once."""
        self.activity.configure(options)
        self.rest.configure(options)

    def adopt(self) -> None:
        """Take up what a former manager left, running or frozen; this is no work."""
        self.apply(self._services.options_of(self._record))
        if self._record.state == "sleeping":
            self.sleep()
        else:
            self.activity.adopt(self._record.extended_until)
            self.opened.set()


def _begin(tasks: OwnTasks, step: Step) -> None:
    tasks.spawn(step())
