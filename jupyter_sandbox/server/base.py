"""What all of the extension's handlers share: errors of our family, whom to admit, and which path is meant."""

from __future__ import annotations

import json
from http.client import responses
from typing import Any
from urllib.parse import unquote, unquote_plus

from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError

from ..errors import SandboxError, error
from .services import Services

RESOURCE = "sandbox"
"""What an authorizer is asked about; the actions are ``read``, ``write`` and ``execute``."""

API = "sandbox/api"
SERVICES = "jupyter_sandbox_services"
_OURS = frozenset({"token", "_xsrf", "no_track_activity"})
"""Parts of a query that belong to the Jupyter server, and to nobody behind it."""


class SandboxHandler(JupyterHandler):
    """Base of every handler, for HTTP and for WebSockets."""

    @property
    def services(self) -> Services:
        """What the extension keeps for all requests."""
        services: Services = self.settings[SERVICES]
        return services

    def admit(self) -> None:
        """Refuse whom the personal manager does not belong to; called once login and authorization are known.

        Raises
        ------
        Denied
            ``SHARED_SERVER``.
        """
        self.services.person.check(self.current_user)

    def manager_path(self) -> str:
        """The manager's path and query for this request, as they came over the wire.

        Raises
        ------
        NotFound
            ``ROUTE_NOT_FOUND`` for a path that could mean another one.
        """
        raw = self.request.path[len(url_path_join(self.base_url, API)) :]
        if any(part in (".", "..") for part in unquote(raw).split("/")):
            raise error("ROUTE_NOT_FOUND")
        kept = [part for part in self.request.query.split("&") if unquote_plus(part.split("=", 1)[0]) not in _OURS]
        return "?".join(filter(None, [raw, "&".join(kept)]))

    def refuse(self, problem: SandboxError, status: int | None = None) -> None:
        """Answer with an error of our family."""
        self.set_status(status or problem.http_status)
        self.set_header("Content-Type", "application/json")
        if problem.retry_after is not None:
            self.set_header("Retry-After", str(problem.retry_after))
        self.finish(json.dumps(problem.to_json()))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with what Jupyter or tornado refused, told as an error of our family."""
        self.refuse(self._told(status_code, (kwargs.get("exc_info") or (None, None))[1]), status_code)

    def _told(self, status: int, cause: BaseException | None) -> SandboxError:
        if isinstance(cause, SandboxError):
            return cause
        said = cause.log_message if isinstance(cause, HTTPError) else None
        if status in (401, 403) and not self.current_user:
            return error("LOGIN_REQUIRED")
        code = {400: "INVALID_REQUEST", 403: "POLICY_DENIED", 404: "ROUTE_NOT_FOUND", 405: "ROUTE_NOT_FOUND"}
        if status in code:
            return error(code[status], str(said)[:500] if said else None)
        return error("INTERNAL", f"The Jupyter server failed: {responses.get(status, status)}.")


class RestHandler(SandboxHandler, APIHandler):
    """Base of the handlers for HTTP.

    Asking is no activity of the server; what works is counted by :class:`~.activity.Activity`.
    """

    _track_activity = False
