"""Passes a request to the manager and its answer back, both as streams that go no faster than the slower side.

Only named headers pass. A caller who goes away ends what he asked for: the connection to the manager is cut, and
that is how a command learns that nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiohttp

from ..client.connection import PATIENT
from ..errors import SandboxError, error
from .base import RestHandler

_REQUEST_HEADERS = ("Accept", "Content-Type", "If-Modified-Since", "If-None-Match", "Range", "X-Sandbox-Client")
_ANSWER_HEADERS = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "ETag",
    "Last-Modified",
    "Retry-After",
    "X-Sandbox-Runtime",
)
_NDJSON = "application/x-ndjson"
_BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)

Asking = Awaitable[aiohttp.ClientResponse]


class RelayHandler(RestHandler):
    """Base of the handlers that pass a request on. Subclasses decorate their verbs and call :meth:`pass_on`."""

    _relaying: asyncio.Task[None] | None = None
    _gone = False

    async def pass_on(self, *, work: bool, asking: Asking | None = None, repeatable: bool = False) -> None:
        """Answer with what the manager answers.

        Parameters
        ----------
        work:
            Whether it counts as the server's activity.
        asking:
            What :meth:`ask` has begun. Default: the request as it is, with the whole of its body.
        repeatable:
            Whether asking twice does the same as asking once.
        """
        asking = self.ask(self.request.body or None, repeatable=repeatable) if asking is None else asking
        self._relaying = asyncio.ensure_future(self._relay(work, asking))
        try:
            await self._relaying
        except asyncio.CancelledError:
            if not self._gone:
                raise

    async def ask(self, body: bytes | AsyncIterator[bytes] | None, *, repeatable: bool) -> aiohttp.ClientResponse:
        """Ask the manager for the same.

        Raises
        ------
        SandboxError
            ``SHARED_SERVER``, ``ROUTE_NOT_FOUND``, ``MANAGER_UNAVAILABLE``; what the manager refuses is an answer.
        """
        self.admit()
        headers = {name: self.request.headers[name] for name in _REQUEST_HEADERS if name in self.request.headers}
        if not isinstance(body, bytes | None) and (length := self.request.headers.get("Content-Length")):
            headers["Content-Length"] = length
        method, path = str(self.request.method), self.manager_path()
        return await self.services.connection.send(
            method, path, repeatable=repeatable, headers=headers, data=body, timeout=PATIENT
        )

    def on_connection_close(self) -> None:
        """Called by tornado when the caller has gone away."""
        super().on_connection_close()
        self._gone = True
        if self._relaying is not None:
            self._relaying.cancel()

    async def _relay(self, work: bool, asking: Asking) -> None:
        with self.services.activity.working() if work else contextlib.nullcontext():
            try:
                answer = await asking
            except SandboxError as problem:
                self.refuse(problem)
                return
            try:
                await self._answer(answer)
            finally:
                answer.close() if not answer.content.at_eof() else answer.release()

    async def _answer(self, answer: aiohttp.ClientResponse) -> None:
        self.set_status(answer.status)
        for name in _ANSWER_HEADERS:
            if name in answer.headers:
                self.set_header(name, answer.headers[name])
        _send_at_once(self)
        try:
            if answer.status == 200 and "Content-Length" not in answer.headers:
                await self.flush()  # A stream has begun, also when its first line is long in coming.
            while chunk := await answer.content.readany():
                self.write(chunk)
                await self.flush()
        except _BROKEN:
            self._break_off(answer)
            return
        await self.finish(set_content_type=answer.headers.get("Content-Type", "application/json"))

    def _break_off(self, answer: aiohttp.ClientResponse) -> None:
        """The manager went away: end a stream of lines with the error, cut others visibly."""
        if answer.headers.get("Content-Type", "").startswith(_NDJSON) and "Content-Length" not in answer.headers:
            self.write(b"\n" + json.dumps(error("MANAGER_UNAVAILABLE").to_json()).encode() + b"\n")
            self.finish(set_content_type=_NDJSON)
        elif (stream := _stream(self)) is not None:
            stream.close()


def _stream(handler: RestHandler) -> Any:
    return getattr(handler.request.connection, "stream", None)


def _send_at_once(handler: RestHandler) -> None:
    """Without this, every small part of a stream waits 40 ms for an acknowledgement of the one before."""
    if (stream := _stream(handler)) is not None:
        stream.set_nodelay(True)
