"""How many sandboxes an owner has: a slot is taken when one is asked for, before anything of it exists."""

from __future__ import annotations

import threading

from ..errors import error

Key = tuple[str, str]


class Slots:
    """The slots of all owners, by owner and ID; looked at and taken under one lock."""

    def __init__(self) -> None:
        self._taken: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def hold(self, key: Key) -> None:
        """Count a sandbox that exists, whatever the limit is by now."""
        with self._lock:
            self._taken.setdefault(key[0], set()).add(key[1])

    def reserve(self, key: Key, limit: int | None) -> None:
        """Take a slot for a sandbox that is about to be made; nothing happens if it has one.

        Raises
        ------
        Denied
            ``LIMIT_REACHED`` if its owner has ``limit`` sandboxes, those included that are just being made.
        """
        owner, sandbox_id = key
        with self._lock:
            taken = self._taken.setdefault(owner, set())
            if limit is not None and sandbox_id not in taken and len(taken) >= limit:
                raise _full(sandbox_id, len(taken), limit)
            taken.add(sandbox_id)

    def release(self, key: Key) -> None:
        """Give a slot back: the sandbox is gone, or was never made."""
        with self._lock:
            taken = self._taken.get(key[0], set())
            taken.discard(key[1])
            if not taken:
                self._taken.pop(key[0], None)

    def count(self, owner: str) -> int:
        """How many slots ``owner`` has taken."""
        with self._lock:
            return len(self._taken.get(owner, ()))


def _full(sandbox_id: str, count: int, limit: int) -> Exception:
    return error(
        "LIMIT_REACHED",
        f"The sandbox {sandbox_id!r} cannot be made: there are {count} sandboxes, and the limit is {limit}.",
        remedy="Destroy one that is no longer needed: `%sandbox list`, then `%sandbox destroy ID`.",
        limit=limit,
        count=count,
    )
