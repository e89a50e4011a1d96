"""Follows what the manager says of its sandboxes, while there is a manager; starts none and keeps none from sleeping.

It feeds two things: the events of the Jupyter server, and what counts as its activity.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from .. import models
from ..client import ndjson, spawn
from ..client.connection import PATIENT, Connection
from ..errors import SandboxError, error
from ..models import SandboxSummary

LOOK_AGAIN = 5.0
"""Seconds between two looks for a manager; each costs one attempt to connect to a socket."""

LIST_AGAIN = 60.0
"""Seconds between two lists while something is at work; Jupyter looks at its own activity as often."""

Event = Mapping[str, Any]


class Watcher:
    """Follows one user's manager.

    Parameters
    ----------
    changed:
        Called with every event of the manager.
    listed:
        Called with all sandboxes, after a change and now and then; returns whether something is at work.
    """

    def __init__(self, changed: Callable[[Event], None], listed: Callable[[Sequence[SandboxSummary]], bool]) -> None:
        self._changed = changed
        self._listed = listed
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Follow every manager that comes, until cancelled."""
        while True:
            with contextlib.suppress(SandboxError, aiohttp.ClientError, OSError):  # There is none, or it went away.
                if spawn.answers(spawn.find_socket()):
                    await self._follow()
            await asyncio.sleep(LOOK_AGAIN)

    async def _follow(self) -> None:
        connection = Connection(own=True, start=False)
        try:
            async with connection.request("GET", "/events", timeout=PATIENT) as response:
                listing = asyncio.ensure_future(self._keep_listing(connection))
                try:
                    async for event in ndjson.objects(response.content):
                        self._news.set()
                        self._changed(event)
                finally:
                    listing.cancel()
        finally:
            await connection.close()
            self._listed([])

    async def _keep_listing(self, connection: Connection) -> None:
        while True:
            self._news.clear()
            at_work = False
            with contextlib.suppress(SandboxError):
                at_work = self._listed(_read(await connection.json("GET", "/sandboxes")))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIST_AGAIN if at_work else None):
                    await self._news.wait()


def _read(answer: Mapping[str, Any]) -> list[SandboxSummary]:
    try:
        return [models.from_json(SandboxSummary, line) for line in answer["sandboxes"]]
    except (LookupError, TypeError, ValueError, AttributeError) as problem:
        raise error("OUTPUT_INVALID", f"The sandbox manager sent a list that is no list: {problem}.") from problem
