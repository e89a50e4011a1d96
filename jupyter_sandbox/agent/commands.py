"""``POST /exec``: one command, its output as it comes, and its end."""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import json
import math
import os
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Set

from tornado.iostream import StreamClosedError

from ..errors import SandboxError, error
from .child import Child
from .kernel_routes import environment_of
from .spawning import memory_file
from .web import Handler, now, settle

PIECE = 65536 - 3
"""Bytes of a pipe that are read at a time; with what is left of a cut character an event has up to 64 KiB."""

_TIMED_OUT = 124
_DRAIN_SECONDS = 0.1


class Command(NamedTuple):
    """A checked request. ``timeout`` in seconds."""

    command: str
    timeout: Optional[float]
    cwd: Optional[str]
    env: Mapping[str, str]
    stdin: Optional[bytes]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Command:
        """Read a request; raises ``INVALID_REQUEST``, ``INVALID_TIMEOUT`` or ``INVALID_PATH``."""
        command = body.get("command")
        if not isinstance(command, str) or not command.strip() or "\0" in command:
            raise error("INVALID_REQUEST", f"{command!r} is not a command: give a text without NUL characters.")
        return cls(
            command, _timeout(body.get("timeout")), body.get("cwd"), environment_of(body), _stdin(body.get("stdin"))
        )


class ExecHandler(Handler):
    """``POST /exec``."""

    def prepare(self) -> None:
        """Know from the start when the caller goes away."""
        self._caller_gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writing = asyncio.Lock()

    def on_connection_close(self) -> None:
        """The caller went away."""
        settle(self._caller_gone)

    async def post(self) -> None:
        """Run it."""
        command = Command.of(self.body())
        run = _Run(self, command)
        await run.child.started
        self.set_header("Content-Type", "application/x-ndjson")
        self.agent.running[self] = {"kind": "exec", "name": command.command[:200], "since": now()}
        try:
            await run.to_its_end()
        except StreamClosedError:
            pass  # nobody is left to tell; the command ends below
        finally:
            await run.close()
            del self.agent.running[self]

    async def event(self, **event: Any) -> None:
        """Send one event and wait until the caller took it. One at a time: tornado forgets an earlier flush."""
        async with self._writing:
            self.write(json.dumps(event, ensure_ascii=False) + "\n")
            await self.flush()

    @property
    def caller_gone(self) -> asyncio.Future[None]:
        """Done when nobody waits for the result any more."""
        return self._caller_gone


class _Run:
    """A running command, its two pipes, and what is sent of them."""

    def __init__(self, handler: ExecHandler, command: Command) -> None:
        self._handler = handler
        self._timeout = command.timeout
        self._began = time.monotonic()
        self._ended = asyncio.Event()
        self._pipes: Dict[str, int] = {}
        self.child = Child(self._spawn(command))

    def _spawn(self, command: Command) -> Any:
        agent = self._handler.agent
        order = {
            "argv": [[shell, "-c", command.command] for shell in ("bash", "sh")],
            "cwd": agent.environment.cwd(command.cwd),
            "env": agent.environment.build(command.env),
            "rlimits": agent.environment.rlimits,
        }
        stdin = os.open(os.devnull, os.O_RDONLY) if command.stdin is None else memory_file(command.stdin)
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        self._pipes = {"stdout": out, "stderr": err}
        try:
            return agent.spawner.spawn(order, (stdin, out_end, err_end), (out, err))
        except SandboxError:
            self._close_pipes()
            raise
        finally:
            for fd in (stdin, out_end, err_end):
                os.close(fd)

    async def to_its_end(self) -> None:
        """Send output as it comes, then the result: when the command has ended, and what it wrote is sent."""
        pumps = [asyncio.ensure_future(self._pump(name, fd)) for name, fd in self._pipes.items()]
        try:
            waited: Set[asyncio.Future[Any]] = {self.child.exited, self._handler.caller_gone}
            await asyncio.wait(waited, timeout=self._timeout, return_when="FIRST_COMPLETED")
            timed_out = not self.child.exited.done()
            if timed_out:
                self.child.kill()
                await self.child.gone
            duration = time.monotonic() - self._began
            if self._handler.caller_gone.done():
                return
            self._ended.set()
            await asyncio.gather(*pumps)
            code = _TIMED_OUT if timed_out else self.child.exited.result().shell_code
            await self._handler.event(event="result", exit_code=code, timed_out=timed_out, duration=duration)
        finally:
            for pump in pumps:
                pump.cancel()

    async def close(self) -> None:
        """The caller has its result, or went away before it had: then everything ends.

        What a command that ended left running in the background is the user's and goes on; its output is read by
        its supervisor from now on.
        """
        if self.child.exited.done() and not self._handler.caller_gone.done():
            self.child.drain()
        else:
            self.child.kill()
        self._close_pipes()

    def _close_pipes(self) -> None:
        while self._pipes:
            os.close(self._pipes.popitem()[1])

    async def _pump(self, name: str, fd: int) -> None:
        """Send what comes through a pipe, to its end, or shortly beyond the command's end if others keep it open."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        os.set_blocking(fd, False)
        async for data in _pieces(fd, self._ended):
            text = decoder.decode(data)
            if text:
                await self._handler.event(event=name, data=text)
        rest = decoder.decode(b"", True)
        if rest:
            await self._handler.event(event=name, data=rest)


async def _pieces(fd: int, ended: asyncio.Event) -> Any:
    deadline = math.inf
    while True:
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            if ended.is_set() and deadline == math.inf:
                deadline = time.monotonic() + _DRAIN_SECONDS
            if time.monotonic() >= deadline:
                return
            await _readable(fd, ended, deadline)
            continue
        if not data:
            return
        yield data
        if ended.is_set():
            deadline = min(deadline, time.monotonic() + _DRAIN_SECONDS)
            if time.monotonic() >= deadline:
                return


async def _readable(fd: int, ended: asyncio.Event, deadline: float) -> None:
    """Until there is something to read, the command has ended, or the deadline is over."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, settle, ready)
    waited: List[asyncio.Future[Any]] = [ready]
    if not ended.is_set():
        waited.append(asyncio.ensure_future(ended.wait()))
    try:
        timeout = None if deadline == math.inf else deadline - time.monotonic()
        await asyncio.wait(waited, timeout=timeout, return_when="FIRST_COMPLETED")
    finally:
        loop.remove_reader(fd)
        for future in waited:
            future.cancel()


def _timeout(value: Any) -> Optional[float]:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise error("INVALID_TIMEOUT", f"The timeout {value!r} is not a number of seconds above 0.")
    return float(value)


def _stdin(value: Any) -> Optional[bytes]:
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise error("INVALID_REQUEST", "'stdin' is not base64.") from None
