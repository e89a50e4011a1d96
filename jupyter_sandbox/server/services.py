"""What the handlers of one server share: the way to the manager, who may use it, and what counts as activity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..client.connection import Connection
from .activity import Activity
from .person import FirstPerson


@dataclass
class Services:
    """Made once per server."""

    person: FirstPerson
    activity: Activity

    @cached_property
    def connection(self) -> Connection:
        """The way to this user's own manager, found or started by the first request; made on the server's loop.

        Never one that the environment names: its token was given for a person's own scripts, not for whoever is
        logged in here.
        """
        return Connection(own=True)

    async def close(self) -> None:
        """Close what was opened."""
        if "connection" in vars(self):
            await self.connection.close()
