"""Control groups, where this process may make them: limits, freezing and measuring from outside.

Version 1 has one hierarchy for each controller, version 2 one for all (kernel documentation:
``admin-guide/cgroup-v1``, ``admin-guide/cgroup-v2``); a machine may have both at once. :func:`discover` finds, for
each of :data:`CONTROLLERS`, a directory in which we may make a group; what it does not find is done otherwise, or
reported as not enforced. A group is named by its lifetime; :class:`Group` is its directories and nothing else, so
that it goes through the records.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import error
from ..models import Usage
from ..options import ResolvedLimits

Controller = Literal["memory", "pids", "cpu", "cpuacct", "freezer"]
CONTROLLERS: tuple[Controller, ...] = ("memory", "pids", "cpu", "cpuacct", "freezer")
PREFIX = "jsb-"
"""What the names of our groups begin with."""

_V2_CONTROLLERS = ("memory", "pids", "cpu")
_CPU_PERIOD = 100_000
_PATIENCE = 5.0


@dataclass(frozen=True)
class Mount:
    """One mounted hierarchy: where, which part of it (``root``), and its controllers; none of them: version 2."""

    path: Path
    root: str
    controllers: frozenset[str]

    @property
    def v2(self) -> bool:
        """Whether this is the one hierarchy of version 2."""
        return not self.controllers

    def own(self, memberships: Mapping[str, str]) -> Path | None:
        """The directory of the group with the path that ``memberships`` has for this hierarchy; None if hidden."""
        name = next((c for c in self.controllers if c in memberships), None) if not self.v2 else ""
        group = memberships.get(name) if name is not None else None
        if group is None or not group.startswith(self.root.rstrip("/")):
            return None
        return self.path / group[len(self.root.rstrip("/")) :].lstrip("/")


def mounts(text: str | None = None) -> list[Mount]:
    """The hierarchies in ``/proc/self/mountinfo``."""
    found = []
    for line in (Path("/proc/self/mountinfo").read_text() if text is None else text).splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            controllers = frozenset(options.split(",")) & set(CONTROLLERS) if kind == "cgroup" else frozenset()
            if controllers or kind == "cgroup2":
                found.append(Mount(Path(fields[4]), fields[3], controllers))
    return found


def memberships(pid: int | Literal["self"] = "self") -> dict[str, str]:
    """The path of the group of ``pid`` for each controller; the empty name stands for version 2."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return {}
    split = (line.split(":", 2) for line in lines)
    return {name: group for _, names, group in split for name in names.split(",")}


def discover() -> dict[Controller, Path]:
    """For each controller that works here, a directory in which we may make a group.

    Trying costs some milliseconds, so that the answer is kept for as long as we stay in the same groups.
    """
    return dict(_discover(tuple(memberships().items())))


@functools.lru_cache(maxsize=8)
def _discover(groups: tuple[tuple[str, str], ...]) -> dict[Controller, Path]:
    found: dict[Controller, Path] = {}
    own = dict(groups)
    for mount in sorted(mounts(), key=lambda one: one.v2):
        start = mount.own(own)
        parent = None if start is None else (_v2_parent(start, mount.path) if mount.v2 else _v1_parent(start))
        if parent is not None:
            offered = _offered(parent) if mount.v2 else mount.controllers
            for controller in CONTROLLERS:
                if controller in offered:
                    found.setdefault(controller, parent)
    return found


def _v1_parent(start: Path) -> Path | None:
    return start if _may_make(start) else None


def _v2_parent(start: Path, top: Path) -> Path | None:
    """The nearest group above our own that may have both processes of ours below it and limits on them.

    A group with processes of its own cannot pass on controllers ("no internal processes"), unless it is the root,
    and a process is moved only by who may write the common ancestor of both groups. Without controllers a group
    still freezes.
    """
    candidates = [one for one in (start, *start.parents) if one == top or top in one.parents]
    usable = []
    for candidate in candidates:
        if not _may_make(candidate):
            break
        usable.append(candidate)
    return next((one for one in usable if "memory" in _offered(one)), usable[0] if usable else None)


def _offered(parent: Path) -> set[str]:
    """The controllers that a group made in ``parent`` would have, once they are asked for."""
    enabled = set(_read(parent / "cgroup.subtree_control").split())
    missing = [name for name in _V2_CONTROLLERS if name in _read(parent / "cgroup.controllers").split()]
    for name in missing:
        with contextlib.suppress(OSError):
            (parent / "cgroup.subtree_control").write_text(f"+{name}")
            enabled.add(name)
    return (enabled & set(_V2_CONTROLLERS)) | {"freezer", *(("cpuacct",) if (parent / "cpu.stat").exists() else ())}


def _may_make(parent: Path) -> bool:
    """Tried, not asked: a read-only mount, a user namespace and a security module all say no in their own way."""
    trial = parent / f"{PREFIX}trial-{os.getpid()}"
    try:
        trial.mkdir(exist_ok=True)
    except OSError:
        return False
    try:
        with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            (trial / "cgroup.procs").write_text(str(process.pid))
    except OSError:
        return False
    else:
        return True
    finally:
        _removed(trial)


@dataclass(frozen=True)
class Group:
    """The directories of one sandbox's group, by controller; several controllers may share one."""

    paths: Mapping[str, str]

    def has(self, controller: Controller) -> bool:
        """Whether the sandbox is under this controller."""
        return controller in self.paths

    def join(self, pid: int) -> None:
        """Move a process, and with it all that it will start, into the group."""
        for directory in self._directories():
            (directory / "cgroup.procs").write_text(str(pid))

    def processes(self) -> set[int]:
        """The ids of all processes in the group."""
        return {int(pid) for path in self._directories() for pid in _read(path / "cgroup.procs").split()}

    def limit(self, limits: ResolvedLimits) -> None:
        """Set limits at once.

        Raises
        ------
        Denied
            ``LIMIT_REACHED`` if the sandbox uses more memory than the new limit, and cannot be made to use less.
        """
        if self.has("memory"):
            self._limit_memory(limits.memory)
        if self.has("pids"):
            self._write("pids", "pids.max", limits.pids)
        if self.has("cpu"):
            quota = max(1000, int(limits.cpus * _CPU_PERIOD))
            if self._v2("cpu"):
                self._write("cpu", "cpu.max", f"{quota} {_CPU_PERIOD}")
            else:
                self._write("cpu", "cpu.cfs_period_us", _CPU_PERIOD)
                self._write("cpu", "cpu.cfs_quota_us", quota)

    def _limit_memory(self, size: int) -> None:
        try:
            if self._v2("memory"):
                self._write("memory", "memory.max", size)
                with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                    self._write("memory", "memory.swap.max", 0)
                return
            names = ["memory.limit_in_bytes"]
            if self._file("memory", "memory.memsw.limit_in_bytes").exists():
                # Memory alone may never be above memory and swap together, whether it grows or shrinks.
                grows = size > int(self._read("memory", "memory.memsw.limit_in_bytes"))
                names.insert(0 if grows else 1, "memory.memsw.limit_in_bytes")
            for name in names:
                self._write("memory", name, size)
        except OSError as exc:
            raise error("LIMIT_REACHED", f"The sandbox uses more than {size} bytes of memory already.") from exc

    def limits_swap(self) -> bool:
        """Whether swap counts against the memory limit."""
        name = "memory.swap.max" if self._v2("memory") else "memory.memsw.limit_in_bytes"
        return self._file("memory", name).exists()

    async def freeze(self) -> None:
        """Freeze every process in the group; returns when all are frozen."""
        await self._set_freezer(frozen=True)

    async def thaw(self) -> None:
        """Undo :meth:`freeze`."""
        await self._set_freezer(frozen=False)

    async def _set_freezer(self, *, frozen: bool) -> None:
        v2 = self._v2("freezer")
        wanted = ("1" if frozen else "0") if v2 else ("FROZEN" if frozen else "THAWED")
        self._write("freezer", "cgroup.freeze" if v2 else "freezer.state", wanted)
        try:
            async with asyncio.timeout(_PATIENCE):
                # Version 1 works on it only while the state is read, so it is read again until it is done.
                while self._frozen() is not frozen:  # noqa: ASYNC110
                    await asyncio.sleep(0.0005)
        except TimeoutError as exc:
            if frozen:
                await self._set_freezer(frozen=False)
            raise error("ENGINE_UNAVAILABLE", f"The sandbox could not be {'frozen' if frozen else 'thawed'}.") from exc

    def _frozen(self) -> bool | None:
        if self._v2("freezer"):
            return _fields(self._read("freezer", "cgroup.events")).get("frozen") == 1
        return {"FROZEN": True, "THAWED": False}.get(self._read("freezer", "freezer.state").strip())

    def oom_kills(self) -> int | None:
        """How many processes of the group the kernel killed for want of memory; None if it does not say."""
        if not self.has("memory"):
            return None
        name = "memory.events" if self._v2("memory") else "memory.oom_control"
        return _fields(self._read("memory", name)).get("oom_kill")

    def usage(self) -> Usage:
        """What the group uses now; file cache that can be dropped at any time is not counted."""
        return Usage(
            cpu_seconds=self._cpu_seconds(), memory=self._memory(), pids=self._pids(), oom_kills=self.oom_kills()
        )

    def _memory(self) -> int | None:
        if not self.has("memory"):
            return None
        used = self._read("memory", "memory.current" if self._v2("memory") else "memory.usage_in_bytes")
        stat = _fields(self._read("memory", "memory.stat"))
        return max(0, int(used) - stat.get("total_inactive_file", stat.get("inactive_file", 0))) if used else None

    def _pids(self) -> int | None:
        text = self._read("pids", "pids.current") if self.has("pids") else ""
        return int(text) if text else None

    def _cpu_seconds(self) -> float | None:
        if not self.has("cpuacct"):
            return None
        if self._v2("cpuacct"):
            used = _fields(self._read("cpuacct", "cpu.stat")).get("usage_usec")
            return None if used is None else used / 1e6
        text = self._read("cpuacct", "cpuacct.usage")
        return int(text) / 1e9 if text else None

    async def remove(self) -> None:
        """Remove the group, whose processes are dead; waits until the kernel has let go of the last one."""
        try:
            async with asyncio.timeout(_PATIENCE):
                # A dead process leaves its group a moment after it was reaped, which nothing announces in version 1.
                while not self._try_to_remove():  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
        except TimeoutError as exc:
            raise error("ENGINE_UNAVAILABLE", "The sandbox's control group cannot be removed.") from exc

    def _try_to_remove(self) -> bool:
        return all([_removed(directory) for directory in self._directories()])  # noqa: C419 - try every one

    def _directories(self) -> set[Path]:
        return {Path(path) for path in self.paths.values()}

    def _file(self, controller: Controller, name: str) -> Path:
        return Path(self.paths[controller]) / name

    def _v2(self, controller: Controller) -> bool:
        return self._file(controller, "cgroup.events").exists()

    def _read(self, controller: Controller, name: str) -> str:
        return _read(self._file(controller, name))

    def _write(self, controller: Controller, name: str, value: object) -> None:
        self._file(controller, name).write_text(str(value))


def create(name: str, parents: Mapping[Controller, Path], limits: ResolvedLimits) -> Group:
    """Make the group ``name`` with ``limits`` below ``parents``; without parents it is empty and does nothing.

    If it raises, nothing is left.
    """
    group = below(parents, name)
    try:
        for path in set(group.paths.values()):
            Path(path).mkdir(exist_ok=True)
        group.limit(limits)
    except BaseException:
        for path in set(group.paths.values()):
            _removed(Path(path))
        raise
    return group


def below(parents: Mapping[Controller, Path], name: str) -> Group:
    """The group ``name`` below ``parents``, whether it exists or not."""
    return Group({controller: str(parent / f"{PREFIX}{name}") for controller, parent in parents.items()})


def of(pid: int) -> Group:
    """The group of ours that ``pid`` is in, for what no record tells of."""
    own = memberships(pid)
    paths: dict[str, str] = {}
    for mount in mounts():
        path = mount.own(own)
        if path is not None and path.name.startswith(PREFIX):
            for controller in CONTROLLERS if mount.v2 else mount.controllers:
                paths.setdefault(controller, str(path))
    return Group(paths)


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _fields(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
