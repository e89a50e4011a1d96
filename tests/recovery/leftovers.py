"""The search for orphans: whatever is on this machine for a world's sandboxes must belong to one of its records."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker

from .world import World

SETTLING = 20.0
"""Seconds in which a manager that has just started may remove what it finds."""

IN_MEMORY = ("starting", "running", "sleeping")
_EXPECTED = re.compile(
    r"records\.sqlite(-journal)?|manager\.(lock|json|log|log\.1)|sandboxes|agent-[0-9a-f]+\.pyz", re.ASCII
)


def assert_nothing_orphaned(world: World, *, empty: bool = False) -> None:
    """Fail if anything is on this machine that no record of ``world`` accounts for.

    Parameters
    ----------
    empty:
        There must be no records, either.
    """
    deadline = time.monotonic() + SETTLING
    while (left := _orphans(world, empty=empty)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, "orphaned:\n" + "\n".join(f"  {line}" for line in left)


def _orphans(world: World, *, empty: bool) -> list[str]:
    known = world.known()
    world.lifetimes |= set(known)
    running = {lifetime for lifetime, body in known.items() if body["state"] in IN_MEMORY}
    return [
        *(f"record of {body['id']}: {body['state']}" for body in known.values() if empty),
        *_processes(world, running),
        *_mounts(world),
        *_control_groups(world, running),
        *_files(world, known),
        *(_engine_objects(world, set(known), running) if world.engine == "docker" else ()),
    ]


def _processes(world: World, running: set[str]) -> Iterator[str]:
    """Processes of lifetimes that do not run, and of second runtimes of those that do."""
    ours = Path("/proc/self/ns/mnt").stat().st_ino
    firsts: Counter[str] = Counter()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = Path(entry.path, "cmdline").read_bytes().decode(errors="replace")
            inside = Path(entry.path, "ns/mnt").stat().st_ino != ours
            seen = words + (Path(entry.path, "mountinfo").read_text(errors="replace") if inside else "")
            lifetime = next((one for one in world.lifetimes if one in seen), None)
            shown = f"process {entry.name}: {words[:160]!r}"
            if lifetime is not None and lifetime not in running:
                yield f"{shown}, of {lifetime}, which does not run"
            elif lifetime is None and (str(world.place) in seen and inside):
                yield shown
            elif lifetime is not None and _is_first(entry.path) and f"-{lifetime}\0" in words:
                firsts[lifetime] += 1
    yield from (f"{number} runtimes of {lifetime}" for lifetime, number in firsts.items() if number > 1)


def _is_first(process: str) -> bool:
    """Whether it is process 1 of a pid namespace other than ours."""
    status = Path(process, "status").read_text()
    return re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE) is not None


def _mounts(world: World) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if any(lifetime in line for lifetime in world.lifetimes):
            yield f"mount: {line}"


def _control_groups(world: World, running: set[str]) -> Iterator[str]:
    for top, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            if any(lifetime in name for lifetime in world.lifetimes - running):
                yield f"control group {top}/{name}"


def _files(world: World, known: dict[str, Any]) -> Iterator[str]:
    """Directories, sockets and temporary files that no record accounts for."""
    yield from (f"file {path}" for path in world.data.iterdir() if not _EXPECTED.fullmatch(path.name))
    directories = world.data / "sandboxes"
    if directories.exists():
        yield from (f"directory {path}" for path in directories.iterdir() if path.name not in known)
    runtimes = [body["runtime"] for body in known.values() if body["runtime"] is not None]
    sockets = {Path(runtime["socket"]).name for runtime in runtimes} | {"manager.sock", "start.lock"}
    doors = {lifetime[:12] for lifetime in known}
    for path in world.sockets.iterdir() if any((world.place / "r").iterdir()) else ():
        with contextlib.suppress(FileNotFoundError):
            is_door = stat.S_ISDIR(path.lstat().st_mode) and path.name in doors
            if path.name not in sockets and not is_door:
                yield f"in the directory of sockets: {path.name}"


def _engine_objects(world: World, known: set[str], running: set[str]) -> Iterator[str]:
    label = {"label": f"org.jupyter.sandbox.installation={world.installation}"}
    with contextlib.closing(docker.APIClient(base_url=world.environment.get("DOCKER_HOST"), version="auto")) as client:
        for found in client.containers(all=True, filters=label):
            lifetime = found["Labels"]["org.jupyter.sandbox.lifetime"]
            if lifetime not in known or (found["State"] in ("running", "paused") and lifetime not in running):
                yield f"container {found['Names']}: {found['State']}"
        for found in client.volumes(label)["Volumes"] or ():
            if found["Labels"]["org.jupyter.sandbox.lifetime"] not in known:
                yield f"volume {found['Name']}"
