"""The agent proxy for kernel channels: frames pass as they are, in both directions, over any number of sleeps.

Frames that work wake the sandbox. Frames that look wait while it sleeps, in order, until somebody wakes it; the
WebSocket itself stays open over a freeze, because nobody sends pings to a frozen agent.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aiohttp
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType, web
from yarl import URL

from ..errors import SandboxError, error
from .actor import Actor
from .agent_link import BASE, DESTROYED, STOPPED, AgentLink
from .channel_frames import MAX_FRAME, SUBPROTOCOL, is_work

_WAITING_FRAMES = 100
_WAITING_BYTES = 8 * 1024 * 1024
_CLOSE_TIMEOUT = 5.0
_DIAL_TIMEOUT = 60.0
_HANG_UP = 0.5
_REASON_BYTES = 120
_OURS = frozenset({DESTROYED, STOPPED})
_ABNORMAL = 1006
_NO_CODE = frozenset({1005, _ABNORMAL, 1015})
"""Codes that stand for "none was received", and may not be sent."""
_BROKEN = (aiohttp.ClientError, ConnectionError)


class _Closed(Exception):
    """The channel is over: the code and the reason with which the client's WebSocket is to close."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def open_channel(request: web.Request, actor: Actor, raw_path: str) -> web.StreamResponse:
    """Connect the client of ``request`` to a kernel's channels, and pass frames until one side ends.

    Opening is looking.

    Raises
    ------
    SandboxError
        ``SANDBOX_ASLEEP``, ``CONTEXT_NOT_FOUND``, ``AGENT_UNREACHABLE``, or ``INVALID_REQUEST`` for a request that
        is no WebSocket of the subprotocol; all before the client's WebSocket is accepted.
    """
    _check_upgrade(request)
    await actor.settled()
    with actor.looking() as link:
        agent = await _dial(actor, link, raw_path)
    try:
        client = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,), max_msg_size=MAX_FRAME, compress=False, timeout=_CLOSE_TIMEOUT
        )
        await client.prepare(request)
        await _Channel(actor, link, client, agent).run()
    finally:
        await _hang_up(agent)
    return client


def _check_upgrade(request: web.Request) -> None:
    offered = {name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
    if request.headers.get("Upgrade", "").lower() != "websocket" or SUBPROTOCOL not in offered:
        raise error("INVALID_REQUEST", f"A channel is a WebSocket with the subprotocol {SUBPROTOCOL}.")


async def _dial(actor: Actor, link: AgentLink, raw_path: str) -> ClientWebSocketResponse:
    url = URL(f"{BASE}/{raw_path}", encoded=True)
    try:
        async with asyncio.timeout(_DIAL_TIMEOUT):
            agent = await link.session.ws_connect(url, protocols=(SUBPROTOCOL,), max_msg_size=MAX_FRAME)
    except aiohttp.WSServerHandshakeError as exc:
        if exc.status == 404:
            raise error("CONTEXT_NOT_FOUND") from exc
        raise error("OUTPUT_INVALID", f"The sandbox refused the channel (status {exc.status}).") from exc
    except (aiohttp.ClientError, ConnectionError, TimeoutError, RuntimeError) as exc:
        raise await actor.lost(link) from exc
    if agent.protocol != SUBPROTOCOL:
        await _hang_up(agent)
        raise error("OUTPUT_INVALID", "The sandbox answered with another protocol than that of a channel.")
    return agent


async def _hang_up(agent: ClientWebSocketResponse) -> None:
    """Close towards the agent, which may be frozen or hostile: whether it answers is hardly waited for."""
    with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
        async with asyncio.timeout(_HANG_UP):
            await agent.close()


class _Channel:
    """One client's WebSocket and the agent's, as long as both are open and the runtime lives."""

    def __init__(
        self, actor: Actor, link: AgentLink, client: web.WebSocketResponse, agent: ClientWebSocketResponse
    ) -> None:
        self._actor = actor
        self._link = link
        self._client = client
        self._agent = agent
        self._waiting: list[bytes] = []
        self._some_wait = asyncio.Event()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Pass frames until the channel is over, then tell the client why."""
        try:
            async with asyncio.TaskGroup() as group:
                for part in (self._from_client(), self._from_agent(), self._until_over(), self._deliver_waiting()):
                    group.create_task(part)
        except* _Closed as closed:
            await self._close(_first(closed))

    async def _from_client(self) -> None:
        async for message in self._client:
            if message.type is not WSMsgType.BINARY:
                raise _Closed(WSCloseCode.UNSUPPORTED_DATA, f"frames of {SUBPROTOCOL} are binary")
            await self._pass_on(message.data)
        raise _Closed(WSCloseCode.OK)

    async def _pass_on(self, frame: bytes) -> None:
        try:
            if is_work(frame):
                async with self._actor.work(self._link):
                    await self._send(frame)
            else:
                await self._look(frame)
        except SandboxError as exc:
            raise self._closed_by(exc) from exc

    async def _look(self, frame: bytes) -> None:
        try:
            with self._actor.looking():
                await self._send(frame)
        except SandboxError as exc:
            if exc.code != "SANDBOX_ASLEEP":
                raise
            self._waiting.append(frame)
            self._some_wait.set()
            if len(self._waiting) > _WAITING_FRAMES or sum(map(len, self._waiting)) > _WAITING_BYTES:
                raise _Closed(WSCloseCode.TRY_AGAIN_LATER, "too much waits for the sandbox to wake") from None

    async def _send(self, frame: bytes | None = None) -> None:
        """Send what waited, then ``frame``."""
        async with self._sending:
            frames, self._waiting = [*self._waiting, *([] if frame is None else [frame])], []
            self._some_wait.clear()
            try:
                for each in frames:
                    await self._agent.send_bytes(each)
            except _BROKEN as exc:
                raise await self._lost() from exc

    async def _deliver_waiting(self) -> None:
        """What waited goes out when the sandbox wakes for another reason than a frame of this channel."""
        while True:
            await self._some_wait.wait()
            await self._actor.opened.wait()
            # Asleep again already: it goes on waiting.
            with suppress(SandboxError), self._actor.looking():
                await self._send()

    async def _from_agent(self) -> None:
        while True:
            message = await self._agent.receive()
            if message.type is not WSMsgType.BINARY:
                raise await self._ending(message)
            try:
                await self._client.send_bytes(message.data)
            except _BROKEN as exc:
                raise _Closed(WSCloseCode.OK) from exc

    async def _ending(self, message: aiohttp.WSMessage) -> _Closed:
        """The agent ended the channel, or broke the protocol: with which code the client is told."""
        if message.type is WSMsgType.TEXT:
            return _Closed(WSCloseCode.INTERNAL_ERROR, "the sandbox sent a frame that is not binary")
        if message.type is WSMsgType.ERROR:
            return _Closed(WSCloseCode.INTERNAL_ERROR, "the sandbox broke the protocol, or sent too much at once")
        code = self._agent.close_code or _ABNORMAL
        if code in _OURS or code in _NO_CODE or not 1000 <= code <= 4999:
            return await self._lost()
        return _Closed(code, "the sandbox closed the channel")

    async def _until_over(self) -> None:
        over = await asyncio.shield(self._link.over)
        raise _Closed(over.code, over.text)

    async def _lost(self) -> _Closed:
        """The connection to the agent broke: with which code the client is told."""
        return self._closed_by(await self._actor.lost(self._link))

    def _closed_by(self, exc: SandboxError) -> _Closed:
        """If the runtime is over that is the reason, else ``exc`` is."""
        if self._link.over.done():
            over = self._link.over.result()
            return _Closed(over.code, over.text)
        return _Closed(WSCloseCode.INTERNAL_ERROR, str(exc))

    async def _close(self, closed: _Closed) -> None:
        reason = closed.reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()
        await self._client.close(code=closed.code, message=reason)


def _first(group: BaseExceptionGroup[_Closed]) -> _Closed:
    """The most telling of the reasons that came up at once: that the runtime is over, if it is."""
    leaves: list[_Closed] = []
    _collect(group, leaves)
    return next((leaf for leaf in leaves if leaf.code in _OURS), leaves[0])


def _collect(group: BaseExceptionGroup[_Closed], leaves: list[_Closed]) -> None:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            _collect(exc, leaves)
        else:
            leaves.append(exc)
