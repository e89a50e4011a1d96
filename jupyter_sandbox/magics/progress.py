"""Says what a start is doing when it takes longer than one waits without wondering."""

from __future__ import annotations

import time
from types import TracebackType

from .screen import Screen

PATIENCE = 1.0
"""Seconds before the first line."""


class Progress:
    """Steps of a start, as lines on stderr that are cleared when the sandbox is ready.

    Parameters
    ----------
    quiet:
        Say nothing at all.
    """

    def __init__(self, screen: Screen, sandbox_id: str, *, quiet: bool) -> None:
        self._screen = screen
        self._id = sandbox_id
        self._quiet = quiet
        self._began = time.monotonic()
        self._said = False

    def __enter__(self) -> Progress:
        return self

    def step(self, name: str) -> None:
        """A step begins."""
        if not self._quiet and (self._said or time.monotonic() - self._began >= PATIENCE):
            self._said = True
            self._screen.note(f"[sandbox {self._id}: starting: {name[:40]}]")

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        # In a terminal the lines stay: there is nothing to clear them with.
        if self._said and problem is None and self._screen.is_kernel:
            self._screen.clear(wait=False)
