"""Why a bubblewrap sandbox ended."""

from __future__ import annotations

from ..base import Ending
from ..cgroups import Group

_SIGKILLED = 128 + 9


def why(group: Group, code: int | None) -> Ending:
    """The ending of a sandbox that was in ``group``; ``code``: bwrap's exit code, None if it was not our child."""
    if group.oom_kills() and code in (None, _SIGKILLED):
        return Ending("out_of_memory", "it ran out of memory")
    if code is None:
        return Ending("unknown", "it ended while nobody looked")
    if code > 128 or code < 0:
        return Ending("killed", f"it was killed (signal {code - 128 if code > 0 else -code})")
    return Ending("exited", f"its agent ended with exit code {code}")
