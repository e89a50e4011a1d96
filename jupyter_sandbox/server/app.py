"""The extension as Jupyter loads it: puts the parts together, starts what follows the manager, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp

from ..models import SandboxSummary
from .activity import Activity
from .base import SERVICES
from .events import ChangedEvents
from .person import FirstPerson
from .routes import rules
from .services import Services
from .watcher import Watcher


class SandboxExtension(ExtensionApp):
    """Sandboxes for who is logged in at this Jupyter server."""

    name = "jupyter_sandbox"
    _watching: asyncio.Task[None] | None = None

    def load_config_file(self, *_: Any, **__: Any) -> None:
        """There is nothing to configure here; the manager reads its own settings."""

    def initialize_settings(self) -> None:
        """Make what the handlers share."""
        assert self.serverapp is not None
        assert self.serverapp.event_logger is not None
        self._services = Services(
            person=FirstPerson(self.serverapp.identity_provider),
            activity=Activity(self.serverapp.web_app.settings["last_activity_times"]),
        )
        self._events = ChangedEvents(self.serverapp.event_logger, with_ids=not self._services.person.matters)
        self.settings[SERVICES] = self._services

    def initialize_handlers(self) -> None:
        """Add the routes, some of which are told apart by more than their path."""
        assert self.serverapp is not None
        self.serverapp.web_app.add_handlers(".*$", rules(self.serverapp.base_url))  # type: ignore[no-untyped-call]

    async def _start_jupyter_server_extension(self, _serverapp: ServerApp) -> None:
        watcher = Watcher(self._events.emit, self._listed)
        self._watching = asyncio.ensure_future(watcher.run())

    def current_activity(self) -> dict[str, str] | None:
        """What keeps this server from being shut down for idleness: sandboxes at work, requests in flight."""
        return self._services.activity.current()

    async def stop_extension(self) -> None:
        """Let go of the manager, which goes on without us."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._services.close()

    def _listed(self, sandboxes: Sequence[SandboxSummary]) -> bool:
        self._services.activity.listed(sandboxes)
        return self._services.activity.runs
