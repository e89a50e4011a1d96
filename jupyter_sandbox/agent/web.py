"""What all routes have in common: the agent's state, JSON in and out, and errors of our family."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Dict, Optional

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from ..errors import SandboxError, error

if TYPE_CHECKING:
    from .environment import Environment
    from .kernels import Kernels
    from .spawning import Spawner


class Agent:
    """The one state that the routes share.

    ``running`` holds what keeps the sandbox busy besides its contexts: key, and the entry of ``GET /status``.
    """

    def __init__(self, runtime: str, environment: Environment, spawner: Spawner, kernels: Kernels) -> None:
        self.runtime = runtime
        self.environment = environment
        self.spawner = spawner
        self.kernels = kernels
        self.running: Dict[object, Dict[str, str]] = {}


def now() -> str:
    """The present moment, as it stands in JSON."""
    return datetime.now(timezone.utc).isoformat()


def settle(future: asyncio.Future[None]) -> None:
    """Mark something as having happened; again is the same as once."""
    if not future.done():
        future.set_result(None)


class Handler(RequestHandler):
    """Base of every HTTP route."""

    agent: Agent

    def initialize(self, agent: Agent) -> None:
        """Called by tornado with the settings of the route."""
        self.agent = agent

    def set_default_headers(self) -> None:
        """No headers that tell what runs here."""
        self.clear_header("Server")

    def compute_etag(self) -> Optional[str]:
        """No hash of every answer: nobody caches them."""
        return None

    def body(self) -> Dict[str, Any]:
        """The request's JSON object; empty for an empty body."""
        try:
            found = json.loads(self.request.body) if self.request.body.strip() else {}
        except ValueError as problem:
            raise error("INVALID_REQUEST", f"The request is not JSON: {problem}.") from None
        if not isinstance(found, dict):
            raise error("INVALID_REQUEST", "The request is not a JSON object.")
        return found

    def answer(self, body: Any = None, status: int = 200) -> None:
        """Send JSON and finish; 204 without a body."""
        if body is None:
            self.set_status(204)
            self.finish()
            return
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(body, ensure_ascii=False))

    def write_error(self, status_code: int, **info: Any) -> None:
        """Whatever went wrong, as JSON of our family."""
        problem = info.get("exc_info", (None, None, None))[1]
        known = as_family(problem, status_code)
        self.set_status(known.http_status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(known.to_json()))

    def log_exception(self, typ: Any, value: Optional[BaseException], tb: Any) -> None:
        """Only what should not happen is worth a line in the log."""
        if not isinstance(value, (SandboxError, HTTPError, StreamClosedError)):
            traceback.print_exception(typ, value, tb, file=sys.stderr)


class Unknown(Handler):
    """Every path that no route matches."""

    def prepare(self) -> None:
        """Whatever the method."""
        raise error("ROUTE_NOT_FOUND", f"The agent has no route {self.request.method} {self.request.path!r}.")


def as_family(problem: Any, status: int = 500) -> SandboxError:
    """Any exception as one of our family."""
    if isinstance(problem, SandboxError):
        return problem
    if problem is None and status >= 500:  # cut off where it stood: the agent was told to end
        return error("AGENT_UNREACHABLE", "The sandbox is ending.")
    if status == 405:
        return error("ROUTE_NOT_FOUND", "The agent's route has no such method.")
    if status < 500:
        return error("INVALID_REQUEST", str(getattr(problem, "log_message", None) or "The request cannot be read."))
    return error("INTERNAL", f"The agent failed: {type(problem).__name__}: {problem}")
