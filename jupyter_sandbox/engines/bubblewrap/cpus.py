"""Limiting CPUs by affinity, where no control group can: a sandbox runs on some whole CPUs and on no others."""

from __future__ import annotations

import contextlib
import math
import os
import zlib

from .. import processes


def share(cpus: float, lifetime: str = "") -> set[int]:
    """The CPUs for a limit of ``cpus``, rounded up; different lifetimes begin at different ones."""
    available = sorted(os.sched_getaffinity(0))
    start = zlib.crc32(lifetime.encode()) % len(available)
    return set((available[start:] + available[:start])[: math.ceil(cpus)])


def pin(root: int, chosen: set[int]) -> None:
    """Move every thread of ``root`` and of its descendants to the CPUs ``chosen``."""
    for one in processes.tree(root):
        for thread in processes.threads(one.pid):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread, chosen)
