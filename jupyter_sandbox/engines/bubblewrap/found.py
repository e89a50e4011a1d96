"""Finding and ending the processes of lifetimes on the host, with no record of them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from .. import cgroups, processes
from ..processes import ProcessId
from .arguments import MARKED_BY

_MARKER = re.compile(rb"jsb-(?P<installation>[0-9A-Za-z]+)-(?P<lifetime>[0-9a-f]{32})")
_FLAG = MARKED_BY.encode()


@dataclass(frozen=True)
class Found:
    """A process of ours: the bwrap outside, or the agent, process 1 inside of a sandbox."""

    process: ProcessId
    installation: str
    lifetime: str


def find(uids: range) -> Iterator[Found]:
    """All of our sandboxes' first processes: those of our own uid, and of ``uids`` if we are root."""
    mine = {os.geteuid(), *(uids if os.geteuid() == 0 else ())}
    for pid in processes.everyone():
        match = _marked(processes.arguments(pid))
        status = processes.status(pid) if match is not None else None
        # What runs inside a sandbox can call itself what it likes. It cannot be outside of the sandbox's pid
        # namespace, nor the first process in it.
        if match is None or status is None or status.pids[1:] not in ((), (1,)) or status.uid not in mine:
            continue
        if (process := ProcessId.of(pid)) is not None:
            yield Found(process, match["installation"].decode(), match["lifetime"].decode())


def _marked(words: list[bytes]) -> re.Match[bytes] | None:
    try:
        return _MARKER.fullmatch(words[words.index(_FLAG) + 1])
    except (ValueError, IndexError):
        return None


async def end(lifetime: str, uids: range) -> None:
    """Kill every process of a lifetime, frozen ones too, and remove its control groups. Idempotent."""
    own = cgroups.below(cgroups.discover(), lifetime)
    groups = [own]
    while found := [*_marked_with(lifetime, uids), *_members(own)]:
        for process in found:
            groups.append(cgroups.of(process.pid))
            await kill(process, groups[-1])
    for group in groups:
        await group.remove()


def _marked_with(lifetime: str, uids: range) -> Iterator[ProcessId]:
    return (one.process for one in find(uids) if one.lifetime == lifetime)


def _members(group: cgroups.Group) -> Iterator[ProcessId]:
    """Living processes of a group; unlike a marker, membership cannot be wiped away from inside."""
    members = (ProcessId.of(pid) for pid in group.processes())
    return (one for one in members if one is not None and one.alive())


async def kill(root: ProcessId, group: cgroups.Group) -> None:
    """Kill ``root`` and all below it at once, and return when it is gone; ``group`` may be frozen."""
    if not root.alive():
        return
    # All of them before the thaw, so that none runs on for a moment.
    for one in processes.tree(root.pid):
        ProcessId(one.pid, one.started, root.boot).signal(signal.SIGKILL)
    if group.has("freezer"):
        await group.thaw()
    await root.ended()
