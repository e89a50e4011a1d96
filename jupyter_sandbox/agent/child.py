"""The agent's handle of one started process: what its supervisor reports, and what it is told."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, NamedTuple, Optional, Sequence

from ..errors import error

MISSING = "The process that looked after it was killed."


class Exit(NamedTuple):
    """How a process ended: its exit code, or minus the number of the signal; and the last it wrote."""

    code: int
    tail: str = ""

    @property
    def signal(self) -> Optional[int]:
        """Number of the signal that ended it, if one did."""
        return -self.code if self.code < 0 else None

    @property
    def shell_code(self) -> int:
        """The exit code as a shell gives it: 128 + n for signal n."""
        return 128 - self.code if self.code < 0 else self.code


class Child:
    """One started process.

    ``started`` is done when it runs (or raises why it does not), ``exited`` when it has ended, and ``gone`` when
    nothing that it ever started is left.
    """

    def __init__(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._control = control
        self.pid: Optional[int] = None
        self.started: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.started.add_done_callback(lambda done: done.cancelled() or done.exception())  # not awaited by all
        loop.add_reader(control, self._read)
        self._read()  # one that was forked in advance has reported already

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process alone, or to its whole process group; nothing if it has ended."""
        self._tell(signal=number, group=group)

    def kill(self) -> None:
        """End it and everything below it; await ``gone`` for the end of it."""
        self._tell(kill=True)

    def drain(self, sinks: Sequence[int]) -> None:
        """From now on the supervisor reads what comes out of these pipes, lest a full pipe stops who writes."""
        self._tell(sinks, drain=True)

    def _tell(self, fds: Sequence[int] = (), **order: Any) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(order).encode()], fds)
        except OSError:
            return  # all are gone, and the loop is about to hear of it

    def _read(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._note(json.loads(data))
        else:
            self._close()

    def _note(self, facts: Any) -> None:
        if "pid" in facts and not self.started.done():
            self.pid = facts["pid"]
            self.started.set_result(None)
        elif "exit" in facts and not self.exited.done():
            self.exited.set_result(Exit(facts["exit"], facts["tail"]))
        elif "failed" in facts and not self.started.done():
            self.started.set_exception(_cannot_start(facts["failed"]))

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        if not self.started.done():
            self.started.set_exception(_cannot_start("its supervisor ended"))
        if not self.exited.done():
            self.exited.set_result(Exit(-9, MISSING))
        self.gone.set_result(None)


def _cannot_start(reason: str) -> Exception:
    text = f"The sandbox cannot start a process: {reason}."
    return error("LIMIT_REACHED", text, remedy="End some of its processes, or raise `limits`.")
