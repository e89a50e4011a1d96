"""Who wants to know when a sandbox changes: one small mailbox per listener, which never grows without bound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..models import State

Event = dict[str, Any]


class Mailbox:
    """The changes that one listener has not read yet; a newer change of a sandbox replaces the older one."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], Event] = {}
        self._arrived = asyncio.Event()

    def put(self, key: tuple[str, str], event: Event) -> None:
        """Add ``event``; what was pending for ``key`` is out of date with it."""
        self._pending.pop(key, None)
        self._pending[key] = event
        self._arrived.set()

    async def take(self) -> list[Event]:
        """All pending events, oldest first; waits until there is one."""
        await self._arrived.wait()
        self._arrived.clear()
        events, self._pending = list(self._pending.values()), {}
        return events


class Events:
    """Tells all listeners of every change of state."""

    def __init__(self) -> None:
        self._mailboxes: set[Mailbox] = set()
        self._generation = 0

    def changed(self, owner: str, sandbox_id: str, state: State) -> None:
        """A sandbox is in another state now, or its options are others."""
        self._generation += 1
        event = {
            "event": "changed",
            "id": sandbox_id,
            "owner": owner,
            "state": state,
            "generation": self._generation,
        }
        for mailbox in self._mailboxes:
            mailbox.put((owner, sandbox_id), event)

    @contextmanager
    def listen(self) -> Iterator[Mailbox]:
        """A mailbox that gets what changes from now on."""
        mailbox = Mailbox()
        self._mailboxes.add(mailbox)
        try:
            yield mailbox
        finally:
            self._mailboxes.discard(mailbox)
