"""A flood of output is published no faster than a front end reads it."""

from __future__ import annotations

from jupyter_sandbox.magics.pace import BURST, RATE, Pace


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_what_a_socket_holds_goes_out_at_once() -> None:
    time = Time()
    pace = Pace(time.clock, time.sleep)
    for _ in range(BURST):
        pace.step()
    assert time.now == 0


def test_a_flood_never_runs_ahead_of_the_rate_by_more_than_a_burst() -> None:
    time = Time()
    pace = Pace(time.clock, time.sleep)
    for sent in range(1, 20_001):
        pace.step()
        assert sent <= BURST + RATE * time.now + 50
    assert time.now <= 20_000 / RATE


def test_after_a_pause_there_is_a_whole_burst_again() -> None:
    time = Time()
    pace = Pace(time.clock, time.sleep)
    for _ in range(5000):
        pace.step()
    before = time.now = time.now + 60
    for _ in range(BURST):
        pace.step()
    assert time.now == before
