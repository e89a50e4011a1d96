"""What the manager remembers over its own death: one SQLite file, one writer, one row per lifetime.

A step is recorded after its side effect, and an intention (``starting``, ``destroying``) before it, so that a
manager killed between any two steps can tell what may exist and finish it or roll it back.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from ..engines.base import Interpreter, Runtime
from ..errors import error
from ..ids import opaque
from ..models import Protection, State, from_json, to_json
from ..options import Network, SandboxOptions
from .principals import Principal

SCHEMA_VERSION = 1
"""``user_version`` of the file; a newer one is refused, never guessed at."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sandboxes (
    lifetime TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (owner, id)
);
"""

_T = TypeVar("_T")


@dataclass
class SandboxRecord:
    """One lifetime of one sandbox, as the records keep it.

    ``options`` holds only what was given explicitly. ``runtime_id`` is set before a start is tried, ``runtime`` once
    the engine has said what it started. ``starts`` counts the starts that succeeded. ``previous_end`` says why the
    last runtime of this lifetime ended, ``failure`` why the last start did not succeed. ``contexts`` names those that
    the runtime has, ``lost_contexts`` those that a former one had and nobody has asked for since. ``asleep_since`` and
    ``extended_until`` are times of the machine's monotonic clock, and mean something only while the runtime exists.
    ``image_id`` is what ``image`` stood for at creation; ``actor`` and ``groups`` are of who asked for it.
    """

    lifetime: str
    owner: str
    id: str
    engine: str
    image: str | None
    network: Network
    interpreter: Interpreter
    options: SandboxOptions
    state: State = "stopped"
    runtime_id: str | None = None
    runtime: Runtime | None = None
    starts: int = 0
    previous_end: str | None = None
    failure: str | None = None
    contexts: tuple[str, ...] = ()
    lost_contexts: tuple[str, ...] = ()
    asleep_since: float | None = None
    extended_until: float | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_active_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    image_id: str | None = None
    actor: str = ""
    groups: tuple[str, ...] = ()

    @property
    def principal(self) -> Principal:
        """Who asked for it to be made."""
        return Principal(owner=self.owner, actor=self.actor or self.owner, groups=self.groups)


class Records:
    """The only door to ``records.sqlite``; every call runs on one thread of its own, in order.

    Parameters
    ----------
    path:
        The file; made with mode 0600 if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="records")
        self._connection: sqlite3.Connection | None = None
        self.installation = ""

    async def open(self) -> None:
        """Open the file, or make it; afterwards :attr:`installation` is known.

        Raises
        ------
        Failed
            ``VERSION_MISMATCH`` if a newer version of this package wrote the file.
        """
        await self._call(self._open)

    async def close(self) -> None:
        """Finish what is queued and let go of the file."""
        if self._connection is not None:
            await self._call(self._connection.close)
        self._thread.shutdown()

    async def all(self) -> list[SandboxRecord]:
        """Every record."""
        rows = await self._call(lambda: self._db.execute("SELECT body FROM sandboxes").fetchall())
        return [_read(json.loads(body)) for (body,) in rows]

    async def save(self, record: SandboxRecord) -> None:
        """Insert or replace the row of ``record``, as it is now; durable when this returns."""
        row = (record.lifetime, record.owner, record.id, record.state, json.dumps(_write(record)))
        await self._call(
            lambda: self._commit(
                "INSERT INTO sandboxes VALUES (?, ?, ?, ?, ?) ON CONFLICT (lifetime) "
                "DO UPDATE SET state = excluded.state, body = excluded.body",
                row,
            )
        )

    async def delete(self, lifetime: str) -> None:
        """Forget a lifetime; nothing happens if it is not known."""
        await self._call(lambda: self._commit("DELETE FROM sandboxes WHERE lifetime = ?", (lifetime,)))

    async def get_meta(self, name: str) -> str | None:
        """A fact about this installation, or None."""
        return await self._call(lambda: self._meta(name))

    async def set_meta(self, name: str, value: str) -> None:
        """Keep a fact about this installation (``engine``: what ``auto`` was decided to be)."""
        await self._call(lambda: self._commit("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value)))

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None, "open() comes first"
        return self._connection

    def _open(self) -> None:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._path.chmod(0o600)
        self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        # Home directories may be on a network file system, where a write-ahead log does not work.
        self._db.execute("PRAGMA journal_mode = DELETE")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version > SCHEMA_VERSION:
            raise error(
                "VERSION_MISMATCH",
                f"{self._path} was written by a newer version (records {version}, this one knows {SCHEMA_VERSION}).",
                remedy="Upgrade jupyter-sandbox.",
            )
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('installation', ?)", (opaque(),))
        self.installation = self._meta("installation") or ""

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _commit(self, sql: str, values: tuple[object, ...]) -> None:
        self._db.execute(sql, values)

    async def _call(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as exc:
            raise error(
                "LIMIT_REACHED",
                f"The records in {self._path.parent} cannot be written: {exc}.",
                remedy="Make room on that disk, then try again; nothing is lost.",
            ) from exc


def _write(record: SandboxRecord) -> dict[str, Any]:
    body = cast("dict[str, Any]", to_json({name: getattr(record, name) for name in record.__dataclass_fields__}))
    return {**body, "options": record.options.to_json()}


def _read(body: dict[str, Any]) -> SandboxRecord:
    known = {name: value for name, value in body.items() if name in SandboxRecord.__dataclass_fields__}
    return SandboxRecord(
        **{
            **known,
            "interpreter": Interpreter(**body["interpreter"]),
            "options": SandboxOptions.from_json(body["options"]),
            "runtime": _read_runtime(body["runtime"]),
            "contexts": tuple(body.get("contexts", ())),
            "groups": tuple(body.get("groups", ())),
            "lost_contexts": tuple(body.get("lost_contexts", ())),
            "created_at": datetime.fromisoformat(body["created_at"]),
            "last_active_at": datetime.fromisoformat(body["last_active_at"]),
        }
    )


def _read_runtime(body: dict[str, Any] | None) -> Runtime | None:
    if body is None:
        return None
    return Runtime(**{**body, "isolation": tuple(from_json(Protection, row) for row in body["isolation"])})
