"""What a container uses, read from the kernel's own files: works while it is frozen, and asks no daemon."""

from __future__ import annotations

from pathlib import Path

from ...models import Usage

_ROOT = Path("/sys/fs/cgroup")
_NANOSECONDS, _MICROSECONDS = 1e9, 1e6


def usage(pid: int) -> Usage | None:
    """The use of the control group of ``pid``; None where its files cannot be read."""
    try:
        groups = _groups(pid)
        return _unified(groups[""]) if (_ROOT / "cgroup.controllers").exists() else _legacy(groups)
    except (OSError, ValueError, KeyError):
        return None


def _groups(pid: int) -> dict[str, Path]:
    """Controller to its path below the hierarchy's root; ``""`` is the unified hierarchy."""
    found: dict[str, Path] = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = Path(path.lstrip("/"))
    return found


def _unified(path: Path) -> Usage:
    group = _ROOT / path
    return Usage(
        cpu_seconds=_field(group / "cpu.stat", "usage_usec") / _MICROSECONDS,
        memory=_number(group / "memory.current"),
        pids=_number(group / "pids.current"),
        oom_kills=_field(group / "memory.events", "oom_kill"),
    )


def _legacy(groups: dict[str, Path]) -> Usage:
    memory = _ROOT / "memory" / groups["memory"]
    return Usage(
        cpu_seconds=_number(_ROOT / "cpuacct" / groups["cpuacct"] / "cpuacct.usage") / _NANOSECONDS,
        memory=_number(memory / "memory.usage_in_bytes"),
        pids=_number(_ROOT / "pids" / groups["pids"] / "pids.current"),
        oom_kills=_field(memory / "memory.oom_control", "oom_kill"),
    )


def _number(path: Path) -> int:
    return int(path.read_text())


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    raise KeyError(name)
