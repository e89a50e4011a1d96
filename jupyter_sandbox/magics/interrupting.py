"""What ■ and a timeout do, step by step: interrupt, interrupt harder, give up; a second ■ restarts the context."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

STEP = 5.0
"""Seconds that each step may take before the next."""

Action = Literal["interrupt", "force", "give_up", "restart"]


class Escalation:
    """Says what to do next to stop a cell. Knows the rules and the time, and does nothing itself.

    Parameters
    ----------
    timeout:
        Seconds after which the cell is interrupted by itself; None: never.
    """

    def __init__(self, timeout: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next: Action = "interrupt"
        self._due = None if timeout is None else clock() + timeout
        self._has_timeout = timeout is not None
        self.presses = 0
        self.timed_out = False

    @property
    def began(self) -> bool:
        """Whether the cell was told to stop."""
        return self._next != "interrupt"

    def press(self) -> Action:
        """■ was pressed: what to do now."""
        self.presses += 1
        if self.presses > 1:
            self._due = None
            return "restart"
        return self._step()

    def wait(self) -> float | None:
        """Seconds until :meth:`due` has something to say; None if only ■ can bring it."""
        return None if self._due is None else max(0.0, self._due - self._clock())

    def due(self) -> Action | None:
        """What the time says to do now, if anything."""
        if self._due is None or self._clock() < self._due:
            return None
        if self._has_timeout and not self.began:
            self.timed_out = True
        return self._step()

    def _step(self) -> Action:
        action: Action = "interrupt" if not self.began else self._next
        self._next = "force" if action == "interrupt" else "give_up"
        self._due = self._clock() + STEP if action != "give_up" else None
        return action


@contextmanager
def sigint_calls(callback: Callable[[], None]) -> Iterator[None]:
    """SIGINT calls ``callback`` in this block instead of raising KeyboardInterrupt at any point of our code.

    Outside the main thread, and where signals are ignored, nothing changes.
    """
    if not _is_ours():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: callback())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def sigint_raises() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt in this block again, as ``input()`` needs it."""
    if not _is_ours():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_ours() -> bool:
    handler: Any = signal.getsignal(signal.SIGINT)
    return threading.current_thread() is threading.main_thread() and handler not in (None, signal.SIG_IGN)
