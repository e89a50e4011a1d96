"""The manager's records as `jupyter sandbox doctor` reads them: never written."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

SCHEMA_KNOWN = 1
"""The newest ``user_version`` that can be read (see :mod:`jupyter_sandbox.manager.records`)."""

_BUSY_SECONDS = 5.0


@dataclass(frozen=True)
class Records:
    """What leftovers are told by: whatever is not in here belongs to no sandbox. ``images``: names that are pinned."""

    installation: str
    engine: str | None
    images: frozenset[str]
    lifetimes: frozenset[str]
    sockets: frozenset[str]
    starting: bool


class Unreadable(Exception):
    """The records are there, and cannot be read; the text says why."""


def read(path: Path) -> Records | None:
    """The records in the file ``path``; None if there are none yet.

    Raises
    ------
    Unreadable
        They are damaged, not allowed to be read, or of a newer version.
    """
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as file:
            version = file.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_KNOWN:
                raise Unreadable(f"a newer version wrote them (records {version}, this one knows {SCHEMA_KNOWN})")
            meta = dict(file.execute("SELECT name, value FROM meta"))
            rows = file.execute("SELECT lifetime, state, body FROM sandboxes").fetchall()
            return _records(meta, rows)
    except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as exc:
        raise Unreadable(str(exc) or type(exc).__name__) from exc


def _records(meta: dict[str, str], rows: list[tuple[str, str, str]]) -> Records:
    runtimes = [json.loads(body).get("runtime") for _, _, body in rows]
    return Records(
        installation=meta["installation"],
        engine=meta.get("engine"),
        images=frozenset(name.split(":", 2)[2] for name in meta if name.startswith("image:")),
        lifetimes=frozenset(lifetime for lifetime, _, _ in rows),
        sockets=frozenset(runtime["socket"] for runtime in runtimes if runtime),
        starting=any(state == "starting" for _, state, _ in rows),
    )
