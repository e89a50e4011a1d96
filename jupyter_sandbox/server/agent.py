"""The agent proxy over HTTP: requests to a sandbox's agent, with bodies of any size in both directions."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated, stream_request_body

from .base import RESOURCE
from .relay import RelayHandler
from .upload import Upload

CONTENT_SECURITY_POLICY = "sandbox; default-src 'none'"
"""On every answer that comes from a sandbox, whatever else this server is configured to say."""

ACTIONS = {"GET": "read", "PUT": "write", "DELETE": "write", "POST": "execute"}
_NO_LIMIT = 2**63 - 1


@stream_request_body
class AgentHandler(RelayHandler):
    """Any request to an agent; the manager knows which ones there are.

    Tornado calls a verb when the whole body is there, but the body is to be passed on while it comes. So asking
    the manager begins before it, once login and authorization are known, and the verb passes the answer back.
    """

    _upload: Upload | None = None
    _asking: asyncio.Task[aiohttp.ClientResponse] | None = None

    @property
    def content_security_policy(self) -> str:
        """Nothing of a sandbox runs on Jupyter's origin."""
        return CONTENT_SECURITY_POLICY

    async def prepare(self) -> None:  # type: ignore[override]
        """Find out who asks; begin to relay a request that has a body."""
        await super().prepare()
        action = ACTIONS.get(str(self.request.method))
        if self._finished or action is None or not self._has_body() or not self.current_user:
            return
        if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, RESOURCE)):
            raise HTTPError(403, f"User is not authorized to {action} on resource: {RESOURCE}.")
        # Only now: who may not upload must not be able to send without end either.
        self.request.connection.set_max_body_size(_NO_LIMIT)  # type: ignore[union-attr]
        self._upload = Upload()
        self._asking = asyncio.ensure_future(self.ask(aiter(self._upload), repeatable=False))
        self._asking.add_done_callback(self._asked)

    async def data_received(self, chunk: bytes) -> None:
        """Pass on a part of the body; called by tornado, which reads on when it is done."""
        if self._upload is not None:
            await self._upload.put(chunk)

    def on_connection_close(self) -> None:
        """Called by tornado when the caller has gone away."""
        super().on_connection_close()
        if self._asking is not None:
            self._asking.cancel()

    @authenticated
    @authorized("read", RESOURCE)
    async def get(self, _owner: str, _id: str, path: str) -> None:
        """Look at something; reading a file is work."""
        await self._relayed(work=path == "files")

    @authenticated
    @authorized("write", RESOURCE)
    async def put(self, _owner: str, _id: str, _path: str) -> None:
        """Write something."""
        await self._relayed(work=True)

    @authenticated
    @authorized("write", RESOURCE)
    async def delete(self, _owner: str, _id: str, _path: str) -> None:
        """Delete something."""
        await self._relayed(work=True)

    @authenticated
    @authorized("execute", RESOURCE)
    async def post(self, _owner: str, _id: str, _path: str) -> None:
        """Run something."""
        await self._relayed(work=True)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Refuse; whoever is still sending learns that nobody reads on."""
        if self._has_body():
            self.set_header("Connection", "close")
        super().write_error(status_code, **kwargs)

    async def _relayed(self, *, work: bool) -> None:
        if self._upload is not None:
            await self._upload.put(None)
        await self.pass_on(work=work, asking=self._asking)

    def _asked(self, asking: asyncio.Task[aiohttp.ClientResponse]) -> None:
        """The manager has answered, or the caller has gone: what still comes of the body is of no use."""
        assert self._upload is not None
        self._upload.refuse()
        if not asking.cancelled():
            asking.exception()  # Retrieved: where nobody is left to tell, it is nobody's.

    def _has_body(self) -> bool:
        headers = self.request.headers
        return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"
