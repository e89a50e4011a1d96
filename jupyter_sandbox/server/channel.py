"""The agent proxy over WebSockets: frames pass as they are, in both directions, and so does the end.

The manager is asked first: only when it has opened its side, with a subprotocol, the caller's side is opened with the
same one. Refusals are answers of HTTP, as for any other request.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
from aiohttp import WSMsgType
from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.websocket import WebSocketMixin
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..client.wire import MAX_FRAME
from ..errors import SandboxError, error
from .base import RESOURCE, SandboxHandler

_NO_CODE = frozenset({1005, 1006, 1015})
"""Codes that stand for "none was received", and may not be sent."""

_GOING_AWAY = 1001
_FAILED = 1011


class ChannelHandler(WebSocketMixin, WebSocketHandler, SandboxHandler):
    """One caller's WebSocket, and the manager's that belongs to it."""

    auth_resource = RESOURCE
    max_message_size = MAX_FRAME
    _there: aiohttp.ClientWebSocketResponse | None = None
    _passing: asyncio.Task[None] | None = None

    def set_default_headers(self) -> None:
        """None: those of a page make no sense for a WebSocket."""

    @ws_authenticated
    @authorized("execute", RESOURCE)
    async def get(self, *_: str) -> None:  # type: ignore[override]
        """Open both sides."""
        if not self.check_origin():  # Tornado looks too, but only when the manager has been asked.
            raise HTTPError(403, "Another site may not open this WebSocket.")
        try:
            self.admit()
            self._there = await self._dial()
        except SandboxError as problem:
            self.refuse(problem)
            return
        try:
            await super().get()
        finally:
            if self.ws_connection is None:
                await self._there.close()

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """The one that the manager has agreed to."""
        agreed = self._there.protocol if self._there is not None else None
        return agreed if agreed in subprotocols else None

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Begin to pass frames."""
        super().open(*args, **kwargs)
        self.set_nodelay(True)
        self._passing = asyncio.ensure_future(self._from_there())

    async def on_message(self, message: str | bytes) -> None:
        """Pass on a frame; tornado reads the next one when it is sent."""
        assert self._there is not None
        try:
            await (self._there.send_bytes(message) if isinstance(message, bytes) else self._there.send_str(message))
        except (aiohttp.ClientError, ConnectionError):
            self.close(_GOING_AWAY)

    def on_close(self) -> None:
        """The caller's side is closed: close the other one."""
        if self._passing is not None:
            self._passing.cancel()
        if self._there is not None:
            self._hanging_up = asyncio.ensure_future(self._hang_up(self._there, self.close_code))

    async def _dial(self) -> aiohttp.ClientWebSocketResponse:
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "")
        names = tuple(name.strip() for name in offered.split(",") if name.strip())
        try:
            return await self.services.connection.websocket(self.manager_path(), names)
        except aiohttp.WSServerHandshakeError as refusal:
            raise _why(refusal.status) from refusal

    async def _from_there(self) -> None:
        assert self._there is not None
        with contextlib.suppress(WebSocketClosedError):
            async for frame in self._there:
                if frame.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                    await self.write_message(frame.data, binary=frame.type is WSMsgType.BINARY)
            code = self._there.close_code
            self.close(_FAILED if code is None or code in _NO_CODE else code)

    async def _hang_up(self, there: aiohttp.ClientWebSocketResponse, code: int | None) -> None:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            await there.close(code=1000 if code is None or code in _NO_CODE else code)


def _why(status: int) -> SandboxError:
    """A refused handshake has no readable body, only a status."""
    codes = {400: "INVALID_REQUEST", 404: "CONTEXT_NOT_FOUND", 409: "SANDBOX_ASLEEP", 503: "AGENT_UNREACHABLE"}
    return error(codes.get(status, "OUTPUT_INVALID"))
