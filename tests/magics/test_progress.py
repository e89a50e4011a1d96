"""A start says nothing while it is quick, and what it does when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_sandbox.magics import progress
from jupyter_sandbox.magics.progress import PATIENCE, Progress


class FakeScreen:
    """Notes and clearing as a list."""

    is_kernel = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, text: str) -> None:
        self.seen.append(text)

    def clear(self, *, wait: bool) -> None:
        self.seen.append("cleared")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def start(clock: list[float], *, quiet: bool = False, seconds: float = 0) -> list[str]:
    screen: Any = FakeScreen()
    with Progress(screen, "box", quiet=quiet) as shown:
        shown.step("container")
        clock[0] += seconds
        shown.step("agent")
    return list(screen.seen)


def test_a_quick_start_says_nothing(clock: list[float]) -> None:
    assert start(clock) == []


def test_a_slow_start_says_its_steps_and_clears_them(clock: list[float]) -> None:
    assert start(clock, seconds=PATIENCE) == ["[sandbox box: starting: agent]", "cleared"]


def test_quiet_is_quiet(clock: list[float]) -> None:
    assert start(clock, quiet=True, seconds=10 * PATIENCE) == []
