"""Processes of the host as /proc shows them: identity that survives a restart of ours, trees, signals, endings.

A process id alone is no identity, because the kernel uses it again. :class:`ProcessId` adds the boot and the start
time, and every signal goes through a pidfd that was opened before the identity was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@functools.cache
def boot_id() -> str:
    """The id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Stat:
    """What ``/proc/PID/stat`` says; ``started`` in clock ticks since boot, CPU in seconds, memory in bytes."""

    pid: int
    state: str
    parent: int
    cpu_seconds: float
    threads: int
    started: int
    memory: int

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more; a process whose first thread has ended may go on with the others."""
        return self.state in "ZX" and self.threads <= 1


def stat(pid: int, thread: int | None = None) -> Stat | None:
    """Read ``/proc/PID/stat``, or that of one of its threads; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses too.
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        threads=int(fields[17]),
        started=int(fields[19]),
        memory=int(fields[21]) * _PAGE,
    )


@dataclass(frozen=True)
class ProcessId:
    """One process, told from every other one that had or will have the same number."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of the process that has ``pid`` now; None if there is none."""
        found = stat(pid)
        return None if found is None else cls(pid, found.started, boot_id())

    @classmethod
    def from_json(cls, body: Any) -> ProcessId:
        """Read what :meth:`to_json` wrote."""
        return cls(int(body["pid"]), int(body["started"]), str(body["boot"]))

    def to_json(self) -> dict[str, Any]:
        """As JSON types, for the records."""
        return {"pid": self.pid, "started": self.started, "boot": self.boot}

    def alive(self) -> bool:
        """Whether it exists and is more than a zombie."""
        found = stat(self.pid) if self.boot == boot_id() else None
        return found is not None and found.started == self.started and not found.ended

    @contextlib.contextmanager
    def pidfd(self) -> Iterator[int | None]:
        """A descriptor of exactly this process, None if it is gone."""
        fd = None
        try:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(self.pid)
            # Checked after opening: from here on the number cannot be used again unnoticed.
            yield fd if self.alive() else None
        finally:
            if fd is not None:
                os.close(fd)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; returns whether there was somebody to send it to."""
        with self.pidfd() as fd, contextlib.suppress(ProcessLookupError):
            if fd is not None:
                signal.pidfd_send_signal(fd, number)
                return True
        return False

    async def ended(self) -> None:
        """Return when it has ended; works for processes that are not our children."""
        with self.pidfd() as fd:
            if fd is not None:
                await readable(fd)


async def readable(fd: int) -> None:
    """Return when ``fd`` can be read without blocking."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, done)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def everyone() -> Iterator[int]:
    """The ids of all processes that /proc shows."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names, not paths


def tree(root: int) -> list[Stat]:
    """``root`` and its descendants, parents before their children."""
    children: dict[int, list[Stat]] = {}
    found = {pid: one for pid in everyone() if (one := stat(pid)) is not None}
    for one in found.values():
        children.setdefault(one.parent, []).append(one)
    ordered = [found[root]] if root in found else []
    for one in ordered:
        ordered.extend(children.get(one.pid, ()))
    return ordered


def threads(pid: int) -> list[int]:
    """The ids of a process's threads; empty if it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - names, not paths
    except OSError:
        return []


def census(root: int) -> tuple[list[Stat], bool]:
    """As :func:`tree`, and whether nobody below ``root`` began or ended meanwhile.

    What forks and ends all the time has always ended when it is looked at, so that a list of those that are there
    misses it. The kernel's own lists of children never do: they name somebody who is gone a moment later.
    """
    if not _LISTS_CHILDREN:
        found = tree(root)
        return found, found == tree(root)
    first = stat(root)
    ordered, complete = [first] if first is not None else [], True
    for one in ordered:
        for pid in _children(one.pid):
            child = stat(pid)
            complete = complete and child is not None
            ordered.extend([child] if child is not None else [])
    return ordered, complete


_LISTS_CHILDREN = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()


def _children(pid: int) -> Iterator[int]:
    for thread in threads(pid):
        with contextlib.suppress(OSError):  # it has just ended: its children are somebody else's now
            yield from map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())


@dataclass(frozen=True)
class Status:
    """From ``/proc/PID/status``: the real uid, and the ids from our own pid namespace to the innermost one."""

    uid: int
    pids: tuple[int, ...]


def status(pid: int) -> Status | None:
    """Read ``/proc/PID/status``; None if there is no such process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    fields = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    return Status(uid=int(fields["Uid"][0]), pids=tuple(map(int, fields.get("NSpid", [str(pid)]))))


def arguments(pid: int) -> list[bytes]:
    """The command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
