"""The routes of the manager itself: its version, the sandboxes and their states, and what changes."""

from __future__ import annotations

from jupyter_server.auth.decorator import authorized
from tornado.web import authenticated

from .base import RESOURCE
from .relay import RelayHandler


class VersionHandler(RelayHandler):
    """Which manager answers here."""

    @authenticated
    @authorized("read", RESOURCE)
    async def get(self) -> None:
        """Ask for it."""
        await self.pass_on(work=False, repeatable=True)


class EventsHandler(RelayHandler):
    """What changes, as a stream that lasts until the caller goes away."""

    @authenticated
    @authorized("read", RESOURCE)
    async def get(self) -> None:
        """Ask for it."""
        await self.pass_on(work=False, repeatable=True)


class ListHandler(RelayHandler):
    """All sandboxes of who asks."""

    @authenticated
    @authorized("read", RESOURCE)
    async def get(self) -> None:
        """Ask for them."""
        await self.pass_on(work=False, repeatable=True)


class SandboxHandler(RelayHandler):
    """One sandbox."""

    @authenticated
    @authorized("read", RESOURCE)
    async def get(self, _owner: str, _id: str) -> None:
        """Ask for its status; wakes nothing."""
        await self.pass_on(work=False, repeatable=True)

    @authenticated
    @authorized("write", RESOURCE)
    async def put(self, _owner: str, _id: str) -> None:
        """Get or create it, and have it running."""
        await self.pass_on(work=True, repeatable=True)

    @authenticated
    @authorized("write", RESOURCE)
    async def delete(self, _owner: str, _id: str) -> None:
        """Destroy it."""
        await self.pass_on(work=True, repeatable=True)


class StateHandler(RelayHandler):
    """Changes of a sandbox's state: wake, sleep, extend."""

    @authenticated
    @authorized("write", RESOURCE)
    async def post(self, _owner: str, _id: str) -> None:
        """Have it changed."""
        await self.pass_on(work=True)
