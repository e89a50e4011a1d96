"""The agent proxy for HTTP: passes a request of the table on and streams the answer back, trusting none of it.

Only named headers pass, in both directions, so that no cookie, login, redirect or browser permission crosses. Bodies
are streamed with back-pressure: each side is read only as fast as the other one takes it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from yarl import URL

from ..errors import SandboxError, error
from .actor import Actor
from .agent_link import BASE, AgentLink
from .agent_routes import Route, clean_query

log = logging.getLogger(__name__)

_REQUEST_HEADERS = ("Accept", "Content-Type", "Content-Length", "If-Modified-Since", "If-None-Match", "Range")
_ANSWER_HEADERS = (
    "Accept-Ranges",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "ETag",
    "Last-Modified",
)
SAFE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""On every answer that comes from a sandbox: a browser must not run it, guess its type or keep it."""

RUNTIME_HEADER = "X-Sandbox-Runtime"
"""On every answer of an agent: which start of the sandbox it comes from; what is made in one belongs to it."""
_MODEL_LIMIT = 64 * 1024
_NAME_LIMIT = 200

_SILENCE = 2.0
"""Seconds without an answer after which somebody else may have frozen the sandbox (`docker pause`)."""

NDJSON = "application/x-ndjson"
_AT_ONCE = 64 * 1024
"""Bytes of a request's body up to which it is read before it is sent on."""

_NOBODY_LISTENS = (ConnectionRefusedError, FileNotFoundError)
_BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)


async def forward(request: web.Request, actor: Actor, route: Route, raw_path: str) -> web.StreamResponse:
    """Answer ``request`` with what the agent of ``actor`` answers.

    Raises
    ------
    SandboxError
        ``SANDBOX_ASLEEP`` for looking at one that is; ``AGENT_UNREACHABLE`` with the reason; why it cannot start.
    """
    url = URL(f"{BASE}/{raw_path}?{clean_query(request.rel_url.raw_query_string)}".rstrip("?"), encoded=True)
    looking = request.method in route.looking
    try:
        return await _attempt(request, actor, route, url, looking=looking)
    except _Refused:
        # Nothing was sent, so nothing was lost: the runtime had ended unnoticed, and work starts another one.
        if looking:
            raise error("SANDBOX_ASLEEP", f"The sandbox {actor.record.id!r} has ended.") from None
    try:
        return await _attempt(request, actor, route, url, looking=looking)
    except _Refused as exc:
        raise exc.reason from None


class _Refused(Exception):
    """The agent's socket refused the connection: no byte of the request has left."""

    def __init__(self, reason: SandboxError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@asynccontextmanager
async def _enter(actor: Actor, *, looking: bool) -> AsyncIterator[AgentLink]:
    if looking:
        await actor.settled()
        with actor.looking() as link:
            yield link
    else:
        async with actor.work() as link:
            yield link


async def _attempt(request: web.Request, actor: Actor, route: Route, url: URL, *, looking: bool) -> web.StreamResponse:
    async with _enter(actor, looking=looking) as link:
        try:
            answer = await _send(request, actor, link, url)
        except aiohttp.ClientConnectorError as exc:
            if not isinstance(exc.os_error, _NOBODY_LISTENS):
                raise await actor.lost(link) from exc
            raise _Refused(await actor.lost(link, refused=True)) from exc
        except _BROKEN as exc:
            raise await actor.lost(link) from exc
        except RuntimeError as exc:
            if not link.session.closed:
                raise
            raise await actor.lost(link) from exc
        async with answer:
            return await _relay(request, actor, link, route, answer)


async def _send(request: web.Request, actor: Actor, link: AgentLink, url: URL) -> aiohttp.ClientResponse:
    headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
    body: bytes | aiohttp.StreamReader | None = request.content if request.body_exists else None
    if body is not None and (request.content_length or _AT_ONCE + 1) <= _AT_ONCE:
        body = await request.read()  # with the headers in one write
    asking = asyncio.ensure_future(
        link.session.request(request.method, url, headers=headers, data=body, allow_redirects=False)
    )
    try:
        done, _ = await asyncio.wait({asking}, timeout=_SILENCE)
        if not done:
            await actor.thawed_again(link)
        return await asking
    finally:
        asking.cancel()


async def _relay(
    request: web.Request, actor: Actor, link: AgentLink, route: Route, answer: aiohttp.ClientResponse
) -> web.StreamResponse:
    if not 200 <= answer.status <= 599:
        raise error("OUTPUT_INVALID", f"The sandbox answered with the status {answer.status}.")
    response = web.StreamResponse(status=answer.status, headers=_headers(route, answer, link))
    await response.prepare(request)
    last = b""
    told = _Told(actor) if _tells_of_a_context(request, route, answer) else None
    while True:
        try:
            chunk = await answer.content.readany()
        except _BROKEN as exc:
            log.info("%s: an answer broke off: %s", actor.record.lifetime, exc)
            await _break_off(request, response, await actor.lost(link), last)
            return response
        if not chunk:
            break
        if told is not None:
            await told.hear(chunk)
        await response.write(chunk)
        last = chunk
    await response.write_eof()
    return response


def _tells_of_a_context(request: web.Request, route: Route, answer: aiohttp.ClientResponse) -> bool:
    return route.kind == "contexts" and request.method == "POST" and answer.status in (200, 201)


class _Told:
    """What the agent says of a context that was asked for: its name is remembered, to tell later that it was lost."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._heard = b""

    async def hear(self, chunk: bytes) -> None:
        """Take a piece of the answer; the last one makes it a JSON object."""
        self._heard = (self._heard + chunk)[:_MODEL_LIMIT]
        try:
            model = json.loads(self._heard)
        except (ValueError, RecursionError):
            return
        name = model.get("context") if isinstance(model, dict) else None
        if isinstance(name, str) and 0 < len(name) <= _NAME_LIMIT:
            await self._actor.note_context(name)


def _headers(route: Route, answer: aiohttp.ClientResponse, link: AgentLink) -> dict[str, str]:
    headers = {name: answer.headers[name] for name in _ANSWER_HEADERS if name in answer.headers}
    if not all(value.isprintable() and value.isascii() for value in headers.values()):
        raise error("OUTPUT_INVALID", "The sandbox answered with a header that cannot be read.")
    headers.update(SAFE_HEADERS)
    headers[RUNTIME_HEADER] = link.runtime.runtime
    if route.kind == "files":
        headers["Content-Disposition"] = "attachment"
    return headers


async def _break_off(request: web.Request, response: web.StreamResponse, reason: SandboxError, last: bytes) -> None:
    """End an answer that has begun: a stream of lines with the error as its last one, others visibly cut."""
    if response.headers.get("Content-Type", "").startswith(NDJSON) and "Content-Length" not in response.headers:
        await response.write((b"" if last.endswith(b"\n") or not last else b"\n") + line(reason.to_json()))
        await response.write_eof()
    elif request.transport is not None:
        request.transport.abort()


def line(value: object) -> bytes:
    """One line of an NDJSON stream."""
    return json.dumps(value).encode() + b"\n"
