"""Freezing a tree of processes with SIGSTOP, where no cgroup freezer can be written.

From the root (the init of the sandbox's pid namespace) downwards, and again until two passes find nothing that
still runs: what is stopped cannot fork, so this ends. Two, because somebody who was about to stop may have
continued somebody else who was looked at before. What was stopped before, by the user or a debugger, is
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
_QUIET_PASSES = 2
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
    quiet = 0
    try:
        async with asyncio.timeout(PATIENCE):
            while quiet < _QUIET_PASSES:
                quiet = 0 if _stop_running(root, before, signalled) else quiet + 1
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
    """One pass; returns whether something may still run."""
    if not root.alive():
        return False
    found, complete = processes.census(root.pid)
    again = not complete
    for one in found:
        key = (one.pid, one.started)
        at_rest = _is_at_rest(one)
        if key in before and at_rest:
            continue
        if key not in signalled:
            # Something stopped may be continued by its neighbours.
            _send(root, one, signal.SIGSTOP)
            signalled.add(key)
            again = True
        elif not at_rest:
            _send(root, one, signal.SIGSTOP)
            # In the kernel's hands it runs no code of its own, and stops before it does again.
            again = again or one.state != _UNINTERRUPTIBLE
    return again


def _is_at_rest(one: Stat) -> bool:
    """Whether it is stopped or ended; the state of a process is that of its first thread, which may end alone."""
    if one.state not in "ZX" or one.ended:
        return one.state in _STOPPED
    others = (processes.stat(one.pid, thread) for thread in processes.threads(one.pid))
    return all(other is None or other.state in _STOPPED for other in others)


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
