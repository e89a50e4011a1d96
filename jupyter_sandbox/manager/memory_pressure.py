"""When memory runs short: what sleeps longest gives its memory back before another sandbox starts or wakes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

REASON = "its memory was needed for another sandbox"
"""Why such a sandbox ended, as its next cell says."""

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_DEFAULT_SHARE = 10
_DEFAULT_MOST = 1024**3


class Sleeper(Protocol):
    """A sandbox that may be asleep, as this module sees it."""

    @property
    def asleep_since(self) -> float | None:
        """When it fell asleep, if it may be stopped; else None."""

    async def give_memory_back(self, reason: str) -> None:
        """Stop it, if it still sleeps and nobody is about to wake it."""


class MemoryPressure:
    """Keeps some memory of this machine free when sandboxes start and wake.

    Parameters
    ----------
    reserve:
        Bytes that are to be available; 0: whatever is available is enough.
    available:
        Measures the bytes that are available.
    """

    def __init__(self, reserve: int, available: Callable[[], int | None] | None = None) -> None:
        self._reserve = reserve
        self._available = available or available_memory
        self._turn = asyncio.Lock()

    async def relieve(self, sleepers: Callable[[], Iterable[Sleeper]]) -> None:
        """Stop sleeping sandboxes, the longest asleep first, until enough memory is available or none is left.

        Never raises for want of memory: whether the start succeeds is for the engine to say.
        """
        if not self._is_short():
            return
        async with self._turn:
            tried: set[Sleeper] = set()
            while self._is_short() and (victim := _longest_asleep(sleepers(), tried)) is not None:
                tried.add(victim)
                try:
                    await victim.give_memory_back(REASON)
                except Exception as exc:  # Whatever ails that one (its engine is down), this one is to start.
                    log.warning("a sleeping sandbox could not be stopped to free memory: %s", exc)

    def _is_short(self) -> bool:
        if self._reserve <= 0:
            return False
        free = self._available()
        return free is not None and free < self._reserve


def _longest_asleep(sleepers: Iterable[Sleeper], tried: set[Sleeper]) -> Sleeper | None:
    asleep = [(since, one) for one in sleepers if one not in tried and (since := one.asleep_since) is not None]
    return min(asleep, key=lambda pair: pair[0])[1] if asleep else None


def default_reserve(proc: Path = _PROC) -> int:
    """A tenth of the machine's memory, at most 1 GiB."""
    return min((_meminfo(proc).get("MemTotal") or 0) // _DEFAULT_SHARE, _DEFAULT_MOST)


def available_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Bytes that can be used before this machine, or a control group that this process is in, runs short.

    None where nothing can be read: then no sandbox is stopped on a guess.
    """
    rooms = [_meminfo(proc).get("MemAvailable"), *(_room(group) for group in _groups(proc, cgroups))]
    known = [room for room in rooms if room is not None]
    return min(known) if known else None


def _meminfo(proc: Path) -> dict[str, int]:
    """``/proc/meminfo`` in bytes."""
    rows = (line.split() for line in _read(proc / "meminfo").splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[1].isdigit()}


def _groups(proc: Path, cgroups: Path) -> Iterable[Path]:
    """The directories of the memory control groups that this process is in, up to the root that is visible here."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "memory"):
            continue
        root = cgroups / controllers
        group = root / path.lstrip("/")
        yield from (one for one in (group, *group.parents) if one.is_relative_to(root))


def _room(group: Path) -> int | None:
    """What may still be used in a group, counting file pages that nobody has asked for lately as free."""
    for limit_name, usage_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = _read(group / limit_name).strip(), _read(group / usage_name).strip()
        if limit.isdigit() and usage.isdigit():
            fields = dict(line.split(" ", 1) for line in _read(group / "memory.stat").splitlines() if " " in line)
            cache = fields.get(cache_name, "0").strip()
            return int(limit) - int(usage) + (int(cache) if cache.isdigit() else 0)
    return None


def _read(path: Path) -> str:
    """The text of a small file of the kernel's; nothing where it is not there or not to be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
