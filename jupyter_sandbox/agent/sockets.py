"""ZMQ sockets on the agent's event loop (zmq.asyncio would cost 50 ms of imports for the same)."""

from __future__ import annotations

import asyncio
from typing import List, Optional, Sequence

import zmq

from .launch import Connection
from .wire import Part

RECONNECT_MS = 4
"""A kernel binds its sockets when it is up; with ZMQ's default of 100 ms that much would be lost at its start."""

_QUIET = 0.05

_context: Optional[zmq.Context[zmq.Socket[bytes]]] = None


def close_all() -> None:
    """Close every socket at once; called when the agent ends."""
    if _context is not None:
        _context.destroy(linger=0)


class ZmqSocket:
    """One connected socket to a kernel.

    Parameters
    ----------
    kind:
        ``zmq.DEALER`` or ``zmq.SUB``.
    address:
        Where the kernel listens, or will listen.
    identity:
        Routing id of a DEALER; a kernel sends an ``input_request`` to the id that the execute request came from.
    topics:
        Prefixes that a SUB subscribes to.
    """

    def __init__(self, kind: int, address: str, *, identity: bytes = b"", topics: Sequence[bytes] = ()) -> None:
        global _context
        if _context is None:
            _context = zmq.Context()
        socket = _context.socket(kind)
        socket.linger = 0
        socket.rcvhwm = socket.sndhwm = 0  # nothing is dropped; the kernel's own process is what pays for the queue
        socket.reconnect_ivl = RECONNECT_MS
        if identity:
            socket.identity = identity
        for topic in topics:
            socket.subscribe(topic)
        socket.connect(address)
        self._socket = socket
        self._fd = int(socket.getsockopt(zmq.FD))
        self._waiting: Optional[asyncio.Future[None]] = None
        self._ending = False

    async def receive(self) -> Optional[List[bytes]]:
        """The next message; None when :meth:`finish` was called and nothing more comes."""
        while not self._socket.closed:
            try:
                return self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                ending = self._ending
            if not await self._readable(_QUIET if ending else None) and ending:
                return None
        return None

    def send(self, frames: Sequence[Part]) -> None:
        """Queue a message; never blocks."""
        self._socket.send_multipart(frames, zmq.NOBLOCK)
        # Sending may have swallowed the descriptor's signal that a message arrived: look again.
        self._wake()

    def finish(self) -> None:
        """The kernel has ended: :meth:`receive` gives what it still sent, then None.

        No event says that libzmq's thread has read a dead peer's last bytes, so it is a short silence that does.
        """
        self._ending = True
        self._wake()

    def close(self) -> None:
        """Close; a pending :meth:`receive` returns None."""
        self._wake()
        self._socket.close()

    async def _readable(self, seconds: Optional[float]) -> bool:
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        loop.add_reader(self._fd, self._wake)
        try:
            done, _ = await asyncio.wait({self._waiting}, timeout=seconds)
            return bool(done)
        finally:
            self._waiting = None
            if not self._socket.closed:
                loop.remove_reader(self._fd)

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            asyncio.get_running_loop().remove_reader(self._fd)  # level-triggered: once is enough
            waiting.set_result(None)


def dealer(connection: Connection, channel: str, identity: bytes) -> ZmqSocket:
    """A socket to a kernel's shell, control or stdin."""
    return ZmqSocket(zmq.DEALER, connection.address(channel), identity=identity)


def subscriber(connection: Connection, *topics: bytes) -> ZmqSocket:
    """A socket to a kernel's iopub."""
    return ZmqSocket(zmq.SUB, connection.address("iopub"), topics=topics or (b"",))
