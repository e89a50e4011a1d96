"""The supervisor: one small process above each command or kernel, from which no descendant escapes.

It is a "child subreaper": whatever its command leaves behind, however often it forked and with whatever session
and environment, becomes a child of the supervisor and so stays findable below it. It starts the process, reports
how it ended, passes on signals, and on demand ends all that is below it. It ends when nothing is left below it.

Reports to the agent: ``{"pid"}``, ``{"exit", "tail"}`` or ``{"failed"}``; the end of the socket says that all are
gone. Orders from the agent: ``{"signal", "group"}``, ``{"drain": true}``, ``{"kill": true}``; the end of the
socket says that the agent is gone, which ends everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
from typing import Any, Dict, List, NamedTuple, NoReturn, Optional, Sequence

_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None).prctl
_TAIL = 4000
_SLOWEST_PASS_MS = 1000


def become_subreaper() -> None:
    """Orphans below this process become its children, not those of process 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def report(control: socket.socket, **facts: Any) -> None:
    """Tell the agent; if it is gone, nobody needs to know."""
    with contextlib.suppress(OSError):
        control.send(json.dumps(facts).encode())


def run(control: socket.socket, paper: int, stdio: Sequence[int], sinks: Sequence[int]) -> NoReturn:
    """Carry out the order written on ``paper``, then end this process when nothing is left below it."""
    become_subreaper()
    with open(paper, "rb") as file:
        order = json.load(file)
    wake = _wake_on_child()
    try:
        main = _start(order, stdio)
    except OSError as problem:
        report(control, failed=str(problem))
        os._exit(1)
    report(control, pid=main)
    for fd in set(stdio):
        os.close(fd)
    _Supervisor(control, main, wake, list(sinks), bool(order.get("drain"))).loop()
    _remove(order.get("scratch"))
    os._exit(0)


def _remove(directory: Optional[str]) -> None:
    """Done here, so that it is done even if the agent was killed."""
    if directory is None:
        return
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

    def __init__(self, control: socket.socket, main: int, wake: int, sinks: List[int], drain: bool) -> None:
        self._control = control
        self._main: Optional[int] = main
        self._wake = wake
        self._sinks = sinks
        self._draining: List[int] = []
        self._tail = b""
        self._killing = False
        self._pause_ms = 1
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(wake, select.POLLIN)
        if drain:
            self._watch_sinks()

    def loop(self) -> None:
        while self._reap():
            if self._killing:
                _kill_all_below(os.getpid())
            for fd, _event in self._poll.poll(self._timeout()):
                self._handle(fd)

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
        for fd in list(self._draining):
            self._drain(fd)
        tail = self._tail.decode("utf-8", "replace")
        report(self._control, exit=os.waitstatus_to_exitcode(status), tail=tail)

    def _obey(self) -> None:
        try:
            data = self._control.recv(4096)
        except OSError:
            data = b""
        order = json.loads(data) if data else {"kill": True}
        if not data:
            self._poll.unregister(self._control)
        if order.get("drain"):
            self._watch_sinks()
        if order.get("signal") and self._main is not None:
            send = os.killpg if order.get("group") else os.kill
            _quietly(send, self._main, int(order["signal"]))
        self._killing = self._killing or bool(order.get("kill"))

    def _watch_sinks(self) -> None:
        for fd in self._sinks:
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
        self._draining = list(self._sinks)

    def _drain(self, fd: int) -> None:
        """Read and forget, but for the last lines: a process must not die of a pipe that nobody reads."""
        data = _read(fd)
        self._tail = (self._tail + (data or b""))[-_TAIL:]
        if data == b"":
            self._poll.unregister(fd)
            self._draining = [other for other in self._draining if other != fd]


def _read(fd: int) -> Optional[bytes]:
    """What is there; b"" at the end, None when there is nothing yet."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


def _start(order: Dict[str, Any], stdio: Sequence[int]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _become(order, stdio)
        except BaseException as problem:  # whatever it is, a forked child must not run on in its parent's code
            os.write(2, f"sandbox: cannot start {order['argv'][-1][0]}: {problem}\n".encode("utf-8", "replace"))
        finally:
            os._exit(127)
    return pid


def _become(order: Dict[str, Any], stdio: Sequence[int]) -> None:
    """Turn the forked child into the process that was asked for."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    _yield_to_the_agent()
    for name, limit in order["rlimits"].items():
        _lower(getattr(resource, name), limit)
    os.chdir(order["cwd"])
    for argv in order["argv"]:
        try:
            os.execvpe(argv[0], argv, order["env"])  # noqa: S606 - the argument is what was asked for
        except FileNotFoundError as problem:
            missing = problem
    raise missing


def _yield_to_the_agent() -> None:
    """The agent has to answer when user code takes all memory or all CPU: this process is the first to suffer."""
    # Without /proc, or with an odd one, the kernel chooses by size, which also spares the agent.
    with contextlib.suppress(OSError, ValueError):
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR)
        score = min(1000, int(os.read(fd, 20)) + 500)
        os.pwrite(fd, b"%d" % score, 0)
        os.close(fd)
    _quietly(os.nice, 5)


def _lower(which: int, limit: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (value, value))


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
