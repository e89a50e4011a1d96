"""The WebSocket of a kernel: each is a ZMQ client of its own, so that the kernel tells them apart."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Awaitable, Callable, Dict, List, Mapping, Optional, Set, Union

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..errors import error
from . import wire
from .kernel import Death, Kernel
from .sockets import ZmqSocket, dealer, subscriber
from .web import Handler

PROTOCOL = "v1.kernel.websocket.jupyter.org"

_NUDGE_SECONDS = 0.1
_LIVE_SECONDS = 60.0

Send = Callable[[bytes], Awaitable[None]]


class Channel:
    """One client's sockets to one kernel: shell, control and stdin under one identity, and iopub."""

    def __init__(self, kernel: Kernel, send: Send, close: Callable[[], None]) -> None:
        self._kernel = kernel
        self._send = send
        self._close = close
        self._sockets: Dict[str, ZmqSocket] = {}
        self._tasks: List[asyncio.Task[None]] = []

    async def attach(self) -> None:
        """Connect to the kernel's present process; returns when the iopub subscription is live.

        Raises
        ------
        SandboxError
            ``KERNEL_DIED`` if it dies before that, ``START_TIMEOUT`` if it does not come up.
        """
        self._detach()
        connection, identity = self._kernel.connection, os.urandom(16).hex().encode()
        self._sockets = {name: dealer(connection, name, identity) for name in wire.CHANNELS}
        iopub = self._sockets["iopub"] = subscriber(connection)
        first = await self._live(iopub)
        self._tasks = [
            asyncio.ensure_future(self._pump(name, socket, first if socket is iopub else None))
            for name, socket in self._sockets.items()
        ]

    def forward(self, frame: bytes) -> None:
        """Pass a client's frame on; raises ``ValueError`` if it is not one."""
        channel, parts = wire.from_frame(frame)
        socket = self._sockets.get(channel)
        if socket is not None:
            socket.send(wire.signed(self._kernel.connection.key, parts))

    def tell(self, msg_type: str, content: Mapping[str, Any]) -> None:
        """Send the client an iopub message of our own."""
        frame = wire.to_frame("iopub", wire.message(msg_type, content))
        asyncio.ensure_future(self._send(frame)).add_done_callback(_forget)

    def end(self, death: Death) -> None:
        """The kernel has ended: pass on what it still said, then say so, then close."""
        for socket in self._sockets.values():
            socket.finish()
        asyncio.ensure_future(self._end(death)).add_done_callback(_forget)

    def close(self) -> None:
        """The client has gone."""
        self._kernel.channels.discard(self)
        self._detach()

    async def _end(self, death: Death) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._send(wire.to_frame("iopub", wire.message("status", death.status())))
        self._close()

    async def _live(self, iopub: ZmqSocket) -> Optional[List[bytes]]:
        """Wait for anything on iopub: it proves that the kernel knows of the subscription.

        ipykernel 7 welcomes a subscriber; other kernels are asked until something comes. Returns a message that
        the client should see, if that is what came.
        """
        waiting = asyncio.ensure_future(iopub.receive())
        either: Set[asyncio.Future[Any]] = {waiting, self._kernel.died}
        try:
            for _ in range(int(_LIVE_SECONDS / _NUDGE_SECONDS)):
                await asyncio.wait(either, timeout=_NUDGE_SECONDS, return_when="FIRST_COMPLETED")
                if self._kernel.died.done():
                    raise error("KERNEL_DIED", f"The kernel died: {self._kernel.died.result().reason}.")
                if waiting.done():
                    return waiting.result()
                self._kernel.nudge()
        finally:
            waiting.cancel()
        raise error("START_TIMEOUT", f"The kernel did not come up within {_LIVE_SECONDS:.0f} s.")

    async def _pump(self, name: str, socket: ZmqSocket, first: Optional[List[bytes]]) -> None:
        """Pass on what the kernel says on one socket, no faster than the client takes it."""
        message = first if first is not None else await socket.receive()
        while message is not None:
            parts = wire.unsigned(message)
            if parts is not None and name == "iopub":
                self._kernel.note(parts)
            if parts is not None and b'"iopub_welcome"' not in parts[0]:
                for frame in wire.frames(name, parts):
                    await self._send(frame)
            del message, parts  # a message may be large: do not keep it while waiting for the next
            message = await socket.receive()

    def _detach(self) -> None:
        for task in self._tasks:
            task.cancel()
        for socket in self._sockets.values():
            socket.close()
        self._sockets, self._tasks = {}, []


class ChannelsHandler(WebSocketHandler, Handler):
    """``WS /api/kernels/ID/channels``."""

    _channel: Optional[Channel] = None

    def check_origin(self, _origin: str) -> bool:
        """No browser reaches the agent's socket by itself; what stands before it has checked."""
        return True

    async def prepare(self) -> None:
        """Be a subscriber before the upgrade is answered, so that no output is lost."""
        offered = [name.strip() for name in self.request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if PROTOCOL not in offered:
            raise error("INVALID_REQUEST", f"The only WebSocket subprotocol here is {PROTOCOL}.")
        kernel = self.agent.kernels.get(self.path_args[0])
        channel = self._channel = Channel(kernel, self._deliver, lambda: self.close(1000, "the kernel ended"))
        kernel.channels.add(channel)
        try:
            await channel.attach()
        except BaseException:  # also when cancelled: the channel must not stay behind
            channel.close()
            raise

    def select_subprotocol(self, _subprotocols: List[str]) -> Optional[str]:
        """The one that :meth:`prepare` has checked."""
        return PROTOCOL

    def on_message(self, message: Union[str, bytes]) -> None:
        """A frame from the client."""
        if isinstance(message, str):
            self.close(1003, "only binary frames are understood")
            return
        try:
            assert self._channel is not None
            self._channel.forward(message)
        except ValueError as problem:
            self.close(1007, str(problem)[:120])

    def on_close(self) -> None:
        """The client has gone."""
        if self._channel is not None:
            self._channel.close()

    def on_connection_close(self) -> None:
        """The same; tornado calls this one as well when the client goes before the upgrade."""
        super().on_connection_close()
        self.on_close()

    async def _deliver(self, frame: bytes) -> None:
        try:
            await self.write_message(frame, binary=True)
        except (WebSocketClosedError, StreamClosedError):
            return  # on_close comes, too


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
