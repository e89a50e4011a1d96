"""What is left of sandboxes that no record knows: found, and removed on demand.

A record is written before anything of its sandbox exists, and deleted after all of it is gone. So what was there
before the records were read, is not in them, and is still there afterwards, belongs to nothing: no lifetime's name
is ever used again.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from ..engines.base import Engine
from ..engines.bubblewrap import files
from ..errors import SandboxError
from .findings import Leftover
from .records_seen import Records

_LIFETIME = re.compile(r"[0-9a-f]{32}")
_MANAGER = "manager.sock"

Engines = Mapping[str, Engine]
Read = Callable[[], Records | None]


async def find(engines: Engines, data: Path, sockets: Path | None, read: Read) -> list[Leftover]:
    """Leftovers of this installation; nothing where there are no records, because nothing is known to be ours then."""
    known = read()
    if known is None:
        return []
    seen = await _seen(engines, known.installation, data, sockets)
    if not seen or (known := read()) is None:
        return []
    still = await _seen(engines, known.installation, data, sockets)
    return [one for one in still if one in seen and not _belongs(one, known)]


def _belongs(one: Leftover, known: Records) -> bool:
    if one.kind == "socket":
        # The socket of a start under way is not on record yet.
        return known.starting or f"{one.where}/{one.name}" in known.sockets
    return one.name in known.lifetimes


async def _seen(engines: Engines, installation: str, data: Path, sockets: Path | None) -> list[Leftover]:
    found = []
    for name, engine in engines.items():
        try:
            lifetimes = await engine.find(installation)
        except SandboxError:  # It does not work here; that is told where the engines are.
            continue
        found += [Leftover(kind="engine", name=lifetime, where=name) for lifetime in sorted(lifetimes)]
    return found + _directories(data / "sandboxes") + _dead_sockets(sockets)


def _directories(place: Path) -> list[Leftover]:
    names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    return [Leftover(kind="directory", name=name, where=str(place)) for name in names if _LIFETIME.fullmatch(name)]


def _dead_sockets(place: Path | None) -> list[Leftover]:
    if place is None:
        return []
    dead = [path.name for path in sorted(place.iterdir()) if path.name != _MANAGER and _is_dead(path)]
    return [Leftover(kind="socket", name=name, where=str(place)) for name in dead]


def _is_dead(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


async def remove(one: Leftover, engines: Engines, data: Path) -> Leftover:
    """Remove it; what comes back says whether it is gone."""
    try:
        if one.kind == "engine":
            await engines[one.where].destroy(one.name, data / "sandboxes" / one.name)
        elif one.kind == "directory":
            files.delete(Path(one.where, one.name))
        else:
            Path(one.where, one.name).unlink(missing_ok=True)
    except (SandboxError, OSError) as exc:
        return dataclasses.replace(one, problem=str(exc))
    return dataclasses.replace(one, removed=True)
