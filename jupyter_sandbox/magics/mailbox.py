"""A bounded way from the client's loop to the thread that shows output."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

LIMIT = 16 * 1024 * 1024
"""Bytes that may wait; a message counts at least :data:`_LEAST`."""

_LEAST = 1024


class Mailbox:
    """What the loop puts, one other thread gets, in order. A slow reader slows the sandbox down.

    Parameters
    ----------
    loop:
        The loop of :meth:`put`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: queue.SimpleQueue[tuple[Any, int]] = queue.SimpleQueue()
        # Each counter has one writer, so no lock is needed, and a signal handler may post at any point.
        self._put = 0
        self._got = 0
        self._room = asyncio.Event()
        self._is_waiting = False

    async def put(self, item: Any, size: int = 0) -> None:
        """Append ``item`` when there is room for its ``size`` in bytes."""
        self._is_waiting = True
        while self._put - self._got >= LIMIT:
            self._room.clear()
            if self._put - self._got >= LIMIT:
                await self._room.wait()
        self._is_waiting = False
        cost = max(size, _LEAST)
        self._put += cost
        self._items.put((item, cost))

    def post(self, item: Any) -> None:
        """Append ``item`` at once. For any thread, and for signal handlers."""
        self._items.put((item, 0))

    def get(self, timeout: float | None = None) -> Any:
        """The next item, waiting up to ``timeout`` seconds; raises ``queue.Empty`` then."""
        item, cost = self._items.get(timeout=timeout)
        self._got += cost
        if self._is_waiting:
            self._loop.call_soon_threadsafe(self._room.set)
        return item
