"""``POST /exec``: one command, its output as it comes, and its end."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import os
import time
from typing import Any, Dict, Mapping, NamedTuple, Optional, Set

from tornado.iostream import StreamClosedError

from ..errors import SandboxError, error
from .child import Child
from .kernel_routes import environment_of
from .output import Output
from .spawning import memory_file
from .web import Handler, now, settle

_TIMED_OUT = 124
_PREPARE_SECONDS = 0.2
"""After so long a command is a long one, and other processes may be started beside it."""


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

    def on_connection_close(self) -> None:
        """The caller went away."""
        settle(self._caller_gone)

    async def post(self) -> None:
        """Run it."""
        command = Command.of(self.body())
        run = _Run(self, command)
        try:
            await run.child.started
            self.set_header("Content-Type", "application/x-ndjson")
            self.agent.running[self] = {"kind": "exec", "name": command.command[:200], "since": now()}
            result = await run.to_its_end()
        except StreamClosedError:
            return  # nobody is left to tell; the command ends below
        finally:
            run.close()
            self.agent.running.pop(self, None)
        await self.finish(_line(result))

    async def event(self, name: str, data: str) -> None:
        """Send one event of output and wait until the caller took it."""
        self.write(_line({"event": name, "data": data}))
        await self.flush()

    def on_finish(self) -> None:
        """The caller has the result: the best moment to prepare for the next command."""
        self.agent.spawner.prepare()

    @property
    def caller_gone(self) -> asyncio.Future[None]:
        """Done when nobody waits for the result any more."""
        return self._caller_gone


class _Run:
    """A running command, and what is sent of it."""

    def __init__(self, handler: ExecHandler, command: Command) -> None:
        self._handler = handler
        self._timeout = command.timeout
        self._began = time.monotonic()
        self._output = Output(handler.event)
        self.child = Child(self._spawn(command))
        self._later = asyncio.get_running_loop().call_later(_PREPARE_SECONDS, handler.agent.spawner.prepare)

    def _spawn(self, command: Command) -> Any:
        agent = self._handler.agent
        order = {
            "argv": [[shell, "-c", command.command] for shell in ("bash", "sh")],
            "cwd": agent.environment.cwd(command.cwd),
            "env": agent.environment.build(command.env),
            "rlimits": agent.environment.rlimits,
        }
        stdin = os.open(os.devnull, os.O_RDONLY) if command.stdin is None else memory_file(command.stdin)
        stdio = [stdin, *self._output.open()]
        try:
            return agent.spawner.spawn(order, stdio)
        except SandboxError:
            self._output.close()
            raise
        finally:
            for fd in stdio:
                os.close(fd)

    async def to_its_end(self) -> Dict[str, Any]:
        """Send output as it comes; the result, when the command has ended and what it wrote is sent."""
        pump = asyncio.ensure_future(self._output.pump())
        pump.add_done_callback(lambda done: done.cancelled() or done.exception())  # not awaited if the caller went
        try:
            waited: Set[asyncio.Future[Any]] = {self.child.exited, self._handler.caller_gone}
            await asyncio.wait(waited, timeout=self._timeout, return_when="FIRST_COMPLETED")
            timed_out = not self.child.exited.done()
            if timed_out:
                self.child.kill()
                await self.child.gone
            duration = time.monotonic() - self._began
            if self._handler.caller_gone.done():
                raise StreamClosedError
            self._output.end()
            await pump
            code = _TIMED_OUT if timed_out else self.child.exited.result().shell_code
            return {"event": "result", "exit_code": code, "timed_out": timed_out, "duration": duration}
        finally:
            pump.cancel()

    def close(self) -> None:
        """Either the command has its result, or its caller went away before: then everything ends.

        What a command that ended left running in the background is the user's and goes on; its output is read by
        its supervisor from now on.
        """
        self._later.cancel()
        if not self.child.exited.done() or self._handler.caller_gone.done():
            self.child.kill()
        elif self._output.unread:
            self.child.drain(self._output.unread)
        self._output.close()


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False) + "\n"


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
