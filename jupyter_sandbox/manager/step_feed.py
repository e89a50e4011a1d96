"""Tells everybody who waits for one start how far it is, also those who came late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..engines.base import Progress, Step


class StepFeed:
    """The steps of a sandbox's starts, one start after the other."""

    def __init__(self) -> None:
        self._done: list[Step] = []
        self._listeners: set[Callable[[Step], None]] = set()

    @contextmanager
    def of_a_start(self) -> Iterator[Progress]:
        """What a start calls with its steps, while it lasts."""
        try:
            yield self._reach
        finally:
            self._done.clear()

    @contextmanager
    def follow(self, listener: Callable[[Step], None]) -> Iterator[None]:
        """Call ``listener`` with the steps of the start under way, from its beginning, or of the next one."""
        for step in self._done:
            listener(step)
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def _reach(self, step: Step) -> None:
        self._done.append(step)
        for listener in self._listeners:
            listener(step)
