"""What the sandboxes do, as Jupyter's own culling understands it: when somebody last worked, and what still works.

Looking is no activity, however often it happens. A sandbox that runs is at work or was a moment ago, because it falls
asleep by itself when it has nothing to do; one with keep-alive never does, and says nothing by running.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from ..models import SandboxSummary

SOURCE = "jupyter_sandbox"
"""Our key in the server's ``last_activity_times``."""

_CHANGING = frozenset({"starting", "destroying"})


class Activity:
    """The activity of one server's sandboxes.

    Parameters
    ----------
    times:
        The server's ``last_activity_times``, in which one's own time is kept up to date.
    """

    def __init__(self, times: MutableMapping[str, datetime]) -> None:
        self._times = times
        self._in_flight = 0
        self._at_work: dict[str, str] = {}

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work passes through the server: both its beginning and its end count."""
        self._touch(datetime.now(UTC))
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._touch(datetime.now(UTC))

    def listed(self, sandboxes: Sequence[SandboxSummary]) -> None:
        """Take over what the manager says of all sandboxes, whoever uses them: notebooks, scripts, the command line."""
        self._at_work = {line.id: line.state for line in sandboxes if _is_at_work(line)}
        for line in sandboxes:
            if line.last_active_at is not None:
                self._touch(line.last_active_at)

    @property
    def runs(self) -> bool:
        """Whether some sandbox may be at work, as far as was listed."""
        return bool(self._at_work)

    def current(self) -> dict[str, str] | None:
        """What is going on right now, for Jupyter's ``current_activity``; None if nothing is."""
        going_on = dict(self._at_work)
        if self._in_flight:
            going_on["requests"] = str(self._in_flight)
        return going_on or None

    def _touch(self, when: datetime) -> None:
        self._times[SOURCE] = max(when, self._times.get(SOURCE, when))


def _is_at_work(line: SandboxSummary) -> bool:
    return line.state in _CHANGING or (line.state == "running" and not line.keep_alive)
