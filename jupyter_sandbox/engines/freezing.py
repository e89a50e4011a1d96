"""Freezing a tree of processes with SIGSTOP, where no cgroup freezer can be written.

From the root (the init of the sandbox's pid namespace) downwards, and again until a pass finds nothing that
still runs: what is stopped cannot fork, so this ends. What was stopped before, by the user or a debugger, is
remembered in a file outside of the sandbox, written before the first signal, so that a manager that was killed
meanwhile thaws neither more nor less than was frozen.
"""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from ..errors import error
from . import processes
from .processes import ProcessId, Stat

_STOPPED = "TtZX"
_UNINTERRUPTIBLE = "D"
PATIENCE = 5.0
"""Seconds in which a tree must have come to rest."""


async def freeze(root: ProcessId, memory: Path) -> None:
    """Stop ``root`` and all its descendants; ``memory`` is the file that remembers. Idempotent.

    Raises
    ------
    Unavailable
        ``ENGINE_UNAVAILABLE`` if something still runs after :data:`PATIENCE` seconds; everything is thawed then.
    """
    if not memory.exists():
        _write(memory, {(one.pid, one.started) for one in _tree(root) if one.state in "Tt"})
    before = _read(memory)
    signalled: set[tuple[int, int]] = set()
    try:
        async with asyncio.timeout(PATIENCE):
            while _stop_running(root, before, signalled):  # noqa: ASYNC110
                # SIGSTOP takes effect when the process next leaves the kernel, which nothing announces.
                await asyncio.sleep(0.001)
    except TimeoutError as exc:
        thaw(root, memory)
        raise error("ENGINE_UNAVAILABLE", "The sandbox could not be frozen: its processes do not stop.") from exc


def thaw(root: ProcessId, memory: Path) -> None:
    """Continue what :func:`freeze` stopped, children first. Idempotent."""
    if not memory.exists():
        return
    before = _read(memory)
    # Children first: a shell that waits for its job must not see it stopped.
    for one in reversed(_tree(root)):
        if (one.pid, one.started) not in before:
            _send(root, one, signal.SIGCONT)
    memory.unlink(missing_ok=True)


def _stop_running(root: ProcessId, before: set[tuple[int, int]], signalled: set[tuple[int, int]]) -> bool:
    """One pass; returns whether another one is needed."""
    again = False
    for one in _tree(root):
        key = (one.pid, one.started)
        if key in before and one.state in _STOPPED:
            continue
        if key not in signalled:
            # A zombie may have living threads, and something stopped may be continued by its neighbours.
            _send(root, one, signal.SIGSTOP)
            signalled.add(key)
            again = True
        elif one.state not in _STOPPED:
            _send(root, one, signal.SIGSTOP)
            # In the kernel's hands it runs no code of its own, and stops before it does again.
            again = again or one.state != _UNINTERRUPTIBLE
    return again


def _tree(root: ProcessId) -> list[Stat]:
    return processes.tree(root.pid) if root.alive() else []


def _send(root: ProcessId, one: Stat, number: signal.Signals) -> None:
    ProcessId(one.pid, one.started, root.boot).signal(number)


def _write(memory: Path, stopped: set[tuple[int, int]]) -> None:
    partial = memory.with_suffix(".new")
    partial.write_text(json.dumps(sorted(stopped)))
    partial.replace(memory)


def _read(memory: Path) -> set[tuple[int, int]]:
    return {(int(pid), int(started)) for pid, started in json.loads(memory.read_text())}
