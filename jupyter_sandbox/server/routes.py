"""Which request goes to which handler. The manager decides what exists; here is only what may be asked at all."""

from __future__ import annotations

import re
from typing import Any

from jupyter_server.utils import url_path_join
from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches, Rule

from .agent import AgentHandler
from .base import API
from .channel import ChannelHandler
from .sandboxes import EventsHandler, ListHandler, SandboxHandler, StateHandler, VersionHandler

_SANDBOX = r"/sandboxes/([^/]+)/([^/]+)"
_AGENT = _SANDBOX + r"/agent/(.+)"


class UpgradeMatches(PathMatches):
    """A path that is asked for as a WebSocket."""

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """As for the path alone, if the request is an upgrade."""
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        return super().match(request) if upgrade else None


def rules(base_url: str) -> list[Rule]:
    """All of them, for a server at ``base_url``; the first that matches answers."""
    base = re.escape(url_path_join(base_url, API))
    return [
        Rule(UpgradeMatches(base + _AGENT + "$"), ChannelHandler),
        Rule(PathMatches(base + _AGENT + "$"), AgentHandler),
        Rule(PathMatches(base + _SANDBOX + "/(?:wake|sleep|extend)$"), StateHandler),
        Rule(PathMatches(base + _SANDBOX + "$"), SandboxHandler),
        Rule(PathMatches(base + "/sandboxes$"), ListHandler),
        Rule(PathMatches(base + "/events$"), EventsHandler),
        Rule(PathMatches(base + "/version$"), VersionHandler),
    ]
