"""The supervisor: one small process above each command or kernel, from which no descendant escapes.

It is a "child subreaper": whatever its command leaves behind, however often it forked and with whatever session
and environment, becomes a child of the supervisor and so stays findable below it. It forks the recruit that becomes
the command (``recruit.py``), reports how that ended, passes on signals, and on demand ends all that is below it. It
ends when nothing is left below it.

Reports to the agent: ``{"pid"}``, ``{"exit", "tail"}`` or ``{"failed"}``; the end of the socket says that all are
gone. Orders from the agent: ``{"signal", "group"}``, ``{"drain": true}`` with the pipes to be emptied,
``{"scratch": directory}`` to be removed at the end, ``{"kill": true}``; the end of the socket says that the agent is
gone, which ends everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
from typing import Any, Dict, List, NamedTuple, NoReturn, Optional

from . import recruit

_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None).prctl
_TAIL = 4000
_MAX_SINKS = 2
_SLOWEST_PASS_MS = 1000


def become_subreaper() -> None:
    """Orphans below this process become its children, not those of process 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def report(control: socket.socket, **facts: Any) -> None:
    """Tell the agent; if it is gone, nobody needs to know."""
    with contextlib.suppress(OSError):
        control.send(json.dumps(facts).encode())


def run(control: socket.socket, orders: socket.socket) -> NoReturn:
    """Fork the recruit that takes its order from ``orders``; end this process when nothing is left below it."""
    become_subreaper()
    wake = _wake_on_child()
    supervisor = os.getpid()
    try:
        main = os.fork()
    except OSError as problem:
        report(control, failed=str(problem))
        os._exit(1)
    if main == 0:
        try:
            control.close()
            recruit.serve(orders, supervisor)
        finally:
            os._exit(127)
    orders.close()
    report(control, pid=main)
    signal.raise_signal(signal.SIGCHLD)  # a rehearsal: pages of memory that are shared after a fork are copied now
    _Supervisor(control, main, wake).loop()
    os._exit(0)


def _remove(directory: str) -> None:
    with contextlib.suppress(OSError):  # user code may have put a directory of its own there
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def _wake_on_child() -> int:
    """A descriptor that becomes readable when a child ended."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reading


class _Supervisor:
    """The loop that watches the agent's socket, the children and the sinks."""

    def __init__(self, control: socket.socket, main: int, wake: int) -> None:
        self._control = control
        self._main: Optional[int] = main
        self._wake = wake
        self._sinks: List[int] = []
        self._tail = b""
        self._scratch: Optional[str] = None
        self._killing = False
        self._pause_ms = 1
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(wake, select.POLLIN)

    def loop(self) -> None:
        """What the agent says is heard before what ended is reaped: it may have been said first."""
        below = True
        while below:
            for fd, _event in self._poll.poll(self._timeout()):
                self._handle(fd)
            below = self._reap()
            if below and self._killing:
                _kill_all_below(os.getpid())
        if self._scratch is not None:
            _remove(self._scratch)  # done here, so that it is done even if the agent was killed

    def _timeout(self) -> Optional[int]:
        if not self._killing:
            return None
        self._pause_ms = min(2 * self._pause_ms, _SLOWEST_PASS_MS)
        return self._pause_ms

    def _handle(self, fd: int) -> None:
        if fd == self._control.fileno():
            self._obey()
        elif fd == self._wake:
            _read(fd)
        else:
            self._drain(fd)

    def _reap(self) -> bool:
        """Reap what ended; False when nothing is left below this process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._main:
                self._main_ended(status)

    def _main_ended(self, status: int) -> None:
        self._main = None
        for fd in list(self._sinks):
            self._drain(fd)
        tail = self._tail.decode("utf-8", "replace")
        report(self._control, exit=os.waitstatus_to_exitcode(status), tail=tail)

    def _obey(self) -> None:
        data = b""
        fds: List[int] = []
        with contextlib.suppress(OSError):
            data, fds, _flags, _address = socket.recv_fds(self._control, 4096, _MAX_SINKS, socket.MSG_CMSG_CLOEXEC)
        order: Dict[str, Any] = json.loads(data) if data else {"kill": True}
        if not data:
            self._poll.unregister(self._control)
        if order.get("drain"):
            self._watch(fds)
        if order.get("signal") and self._main is not None:
            send = os.killpg if order.get("group") else os.kill
            _quietly(send, self._main, int(order["signal"]))
        self._scratch = order.get("scratch", self._scratch)
        self._killing = self._killing or bool(order.get("kill"))

    def _watch(self, sinks: List[int]) -> None:
        for fd in sinks:
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
        self._sinks += sinks

    def _drain(self, fd: int) -> None:
        """Read and forget, but for the last lines: a process must not die of a pipe that nobody reads."""
        data = _read(fd)
        self._tail = (self._tail + (data or b""))[-_TAIL:]
        if data == b"":
            self._poll.unregister(fd)
            self._sinks.remove(fd)
            os.close(fd)


def _read(fd: int) -> Optional[bytes]:
    """What is there; b"" at the end, None when there is nothing yet."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


class _Process(NamedTuple):
    pid: int
    parent: int
    group: int


def _kill_all_below(root: int) -> None:
    """One pass of SIGKILL over every descendant of ``root``; the caller repeats it until none is left.

    Whole process groups at a time: that is atomic in the kernel, so that a fork bomb within a group cannot outrun
    it. All groups are groups of ours alone, because the started process made a session of its own.
    """
    found = _descendants(root)
    for group in {process.group for process in found} - {os.getpgrp(), 0, 1}:
        _quietly(os.killpg, group, signal.SIGKILL)
    for process in found:
        _quietly(os.kill, process.pid, signal.SIGKILL)


def _descendants(root: int) -> List[_Process]:
    children: Dict[int, List[_Process]] = {}
    for name in os.listdir("/proc"):
        process = _stat(name) if name.isdigit() else None
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    found: List[_Process] = list(children.get(root, ()))
    for process in found:  # grows while it is walked: breadth first
        found.extend(children.get(process.pid, ()))
    return found


def _stat(pid: str) -> Optional[_Process]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None  # it ended meanwhile
    return _Process(int(pid), int(fields[1]), int(fields[2])) if len(fields) > 2 else None


def _quietly(call: Any, *arguments: int) -> None:
    # It may have ended meanwhile, or belong to somebody else.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        call(*arguments)
