"""Control groups: how hierarchies are read, and what is written to both versions."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
from pathlib import Path

import pytest

from jupyter_sandbox import ids
from jupyter_sandbox.engines import cgroups
from jupyter_sandbox.errors import SandboxError
from jupyter_sandbox.options import ResolvedLimits

MOUNTINFO = """\
25 1 0:22 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
26 1 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 1 0:24 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
28 1 0:25 /docker/abc /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
29 1 0:26 / /proc rw - proc proc rw
"""


def test_hierarchies_are_told_apart() -> None:
    found = {str(one.path): one for one in cgroups.mounts(MOUNTINFO)}
    assert set(found) == {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/unified"}
    assert found["/sys/fs/cgroup/cpu,cpuacct"].controllers == {"cpu", "cpuacct"}
    assert found["/sys/fs/cgroup/unified"].v2


def test_the_own_group_is_found_below_the_part_that_is_mounted() -> None:
    memory, cpu, unified = cgroups.mounts(MOUNTINFO)
    groups = {"memory": "/a/b", "cpu": "/", "cpuacct": "/", "": "/docker/abc/c"}
    assert memory.own(groups) == Path("/sys/fs/cgroup/memory/a/b")
    assert cpu.own(groups) == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert unified.own(groups) == Path("/sys/fs/cgroup/unified/c")
    assert unified.own({"": "/elsewhere"}) is None
    assert memory.own({}) is None


@pytest.fixture
def v2(tmp_path: Path) -> cgroups.Group:
    """The files of a group of version 2, as the kernel documentation has them, on an ordinary file system."""
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (tmp_path / "memory.swap.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 500\n")
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (tmp_path / "pids.current").write_text("7\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    return cgroups.Group(dict.fromkeys(cgroups.CONTROLLERS, str(tmp_path)))


def test_limits_of_version_2(v2: cgroups.Group, tmp_path: Path) -> None:
    v2.limit(ResolvedLimits(cpus=1.5, memory=2**30, pids=100))
    written = {name: (tmp_path / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")}
    assert written == {
        "memory.max": str(2**30),
        "memory.swap.max": "0",
        "pids.max": "100",
        "cpu.max": "150000 100000",
    }


def test_usage_of_version_2(v2: cgroups.Group) -> None:
    usage = v2.usage()
    assert (usage.memory, usage.pids, usage.cpu_seconds, usage.oom_kills) == (2500, 7, 1.5, 2)


async def test_a_freeze_that_does_not_happen_is_undone_and_named(
    v2: cgroups.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_PATIENCE", 0.05)
    with pytest.raises(SandboxError) as caught:
        await v2.freeze()
    assert caught.value.code == "ENGINE_UNAVAILABLE"
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_a_group_without_controllers_does_nothing() -> None:
    empty = cgroups.create("name", {}, ResolvedLimits())
    empty.join(os.getpid())
    assert not any(empty.has(one) for one in cgroups.CONTROLLERS)
    asyncio.run(empty.remove())


def test_a_group_that_cannot_be_limited_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cgroups.create("x", {"memory": tmp_path, "pids": Path("/proc/nonexistent")}, ResolvedLimits())
    assert list(tmp_path.iterdir()) == []


def _writable() -> list[tuple[str, cgroups.Controller, Path]]:
    """Every freezer of this machine in which a group can be made."""
    own = cgroups.memberships()
    found = [(one, one.own(own)) for one in cgroups.mounts() if one.v2 or "freezer" in one.controllers]
    return [(f"v{2 if one.v2 else 1}", "freezer", path) for one, path in found if path and os.access(path, os.W_OK)]


@pytest.mark.root
@pytest.mark.parametrize(("version", "controller", "parent"), _writable())
async def test_the_freezer_of_this_machine_freezes_and_thaws(
    version: str, controller: cgroups.Controller, parent: Path
) -> None:
    group = cgroups.create(ids.opaque(), {controller: parent}, ResolvedLimits())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as echo:
        assert echo.stdin is not None
        assert echo.stdout is not None
        group.join(echo.pid)
        await group.freeze()
        echo.stdin.write(b"x")
        assert select.select([echo.stdout], [], [], 0.2)[0] == []
        await group.thaw()
        assert echo.stdout.read(1) == b"x"
    await group.remove()
    assert not any(Path(path).exists() for path in group.paths.values())


@pytest.mark.root
def test_what_is_discovered_can_be_used() -> None:
    parents = cgroups.discover()
    if not parents:
        pytest.skip("this machine lets us have no control groups")
    group = cgroups.create(ids.opaque(), parents, ResolvedLimits(memory=256 * 2**20, pids=50))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        group.join(process.pid)
        assert cgroups.of(process.pid).paths == group.paths
    asyncio.run(group.remove())
