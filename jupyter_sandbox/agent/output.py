"""What a command writes: its two pipes as texts, in order, as they come."""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import math
import os
import struct
import termios
import time
from typing import Awaitable, Callable, Dict, List, Optional

from .web import settle

PIECE = 65536 - 3
"""Bytes of a pipe that are read at a time; with what is left of a cut character a text has up to 64 KiB."""

_DRAIN_SECONDS = 0.1

Send = Callable[[str, str], Awaitable[None]]


class _Pipe:
    """The reading end of one pipe. ``due``: bytes that were in it when the command ended."""

    def __init__(self, name: str, fd: int) -> None:
        os.set_blocking(fd, False)
        self.name = name
        self.fd = fd
        self.due = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> Optional[bytes]:
        """What is there; b"" at the end, None when there is nothing yet."""
        try:
            data = os.read(self.fd, PIECE)
        except BlockingIOError:
            return None
        self.due -= len(data)
        return data

    def text(self, data: bytes) -> str:
        """Decode the next bytes; b"" for the rest at the end."""
        return self._decoder.decode(data, not data)

    def count_due(self) -> None:
        """Find out how much is in it."""
        self.due = struct.unpack("i", fcntl.ioctl(self.fd, termios.FIONREAD, b"\0" * 4))[0]


class Output:
    """The pipes of a command from its start until shortly after its end.

    Parameters
    ----------
    send:
        Called with ``"stdout"`` or ``"stderr"`` and a text; nothing is read while it is awaited.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open: Dict[int, _Pipe] = {}
        self._deadline = math.inf
        self._news: Optional[asyncio.Future[None]] = None

    def open(self) -> List[int]:
        """Make the pipes; their writing ends, stdout and stderr, are the caller's."""
        ends = []
        for name in ("stdout", "stderr"):
            reading, writing = os.pipe()
            self._open[reading] = _Pipe(name, reading)
            ends.append(writing)
        return ends

    @property
    def unread(self) -> List[int]:
        """Pipes that somebody may still write to."""
        return list(self._open)

    def close(self) -> None:
        """Read no more."""
        for fd in self.unread:
            self._close(fd)

    def end(self) -> None:
        """The command has ended: what it wrote is still sent, and little beyond it if others write on."""
        self._deadline = time.monotonic() + _DRAIN_SECONDS
        for pipe in self._open.values():
            pipe.count_due()
        self._tell()

    async def pump(self) -> None:
        """Send what comes, until all pipes are at their end or :meth:`end` was called and what was due is sent."""
        while self._open and not self._is_over():
            if not await self._pass():
                if time.monotonic() >= self._deadline:
                    break
                await self._readable()
        for pipe in self._open.values():
            await self._say(pipe, b"")

    async def _pass(self) -> bool:
        """Read each pipe once; False if there was nothing."""
        found = False
        for pipe in list(self._open.values()):
            data = pipe.read()
            if data is None:
                continue
            found = True
            if not data:
                self._close(pipe.fd)
            await self._say(pipe, data)
        return found

    async def _say(self, pipe: _Pipe, data: bytes) -> None:
        text = pipe.text(data)
        if text:
            await self._send(pipe.name, text)

    def _is_over(self) -> bool:
        return time.monotonic() >= self._deadline and all(pipe.due <= 0 for pipe in self._open.values())

    async def _readable(self) -> None:
        """Until there is something to read, the command has ended, or the deadline is over."""
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        for fd in self._open:
            loop.add_reader(fd, self._tell)
        timer = None
        if self._deadline < math.inf:
            timer = loop.call_later(self._deadline - time.monotonic(), self._tell)
        try:
            await self._news
        finally:
            for fd in self._open:
                loop.remove_reader(fd)
            if timer is not None:
                timer.cancel()

    def _tell(self) -> None:
        if self._news is not None:
            settle(self._news)

    def _close(self, fd: int) -> None:
        del self._open[fd]
        os.close(fd)
