"""The spawner: a small process, forked from the agent before it has threads, that forks everything else.

A fork of it costs a fraction of a millisecond, because it is small, and is safe, because it has one thread. For
each order it forks a supervisor (``supervisor.py``), which talks to the agent over a socket of its own; the
spawner itself only receives descriptors and forks. An order travels as a sealed-in-memory file, so that the agent
never blocks, however long a command line is.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from typing import Any, Dict, List, NoReturn, Optional, Sequence

from ..errors import error
from . import supervisor

_MAX_FDS = 8


class Spawner:
    """The agent's handle of its spawner; forks it when made, and anew should it have been killed."""

    def __init__(self) -> None:
        self._socket: Optional[socket.socket] = None
        self._start()

    def spawn(self, order: Dict[str, Any], stdio: Sequence[int], sinks: Sequence[int] = ()) -> socket.socket:
        """Start a process and return the (non-blocking) socket of its supervisor.

        Parameters
        ----------
        order:
            ``{"argv": [alternative, …], "cwd", "env", "rlimits", "drain", "scratch"}``; the first alternative that
            exists runs. ``scratch`` is a directory that is removed at the end.
        stdio:
            Descriptors of its standard input, output and error. The caller closes its copies.
        sinks:
            Reading ends of pipes that the supervisor empties when told to (or at once with ``drain``).
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paper = memory_file(json.dumps(order).encode())
        try:
            self._send([theirs.fileno(), paper, *stdio, *sinks])
        except OSError as problem:
            ours.close()
            raise error("START_FAILED", f"The sandbox cannot start a process: {problem}.") from problem
        finally:
            os.close(paper)
            theirs.close()
        ours.setblocking(False)
        return ours

    def close(self) -> None:
        """Let the spawner end; what it started goes on."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, fds: List[int]) -> None:
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [b"!"], fds, socket.MSG_DONTWAIT)
        except (BrokenPipeError, ConnectionResetError):
            self._start()  # user code has the same uid and may have killed it
            socket.send_fds(self._socket, [b"!"], fds, socket.MSG_DONTWAIT)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            try:
                _serve(theirs)
            finally:
                os._exit(1)
        theirs.close()
        self._socket = ours


def memory_file(data: bytes) -> int:
    """A descriptor of an anonymous file in memory that holds ``data``, positioned at its start."""
    fd = os.memfd_create("order", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _serve(orders: socket.socket) -> NoReturn:
    """The spawner's life: fork a supervisor for each order until the agent is gone."""
    os.setsid()
    signal.set_wakeup_fd(-1)  # forked anew from a running agent, it would be the loop's
    os.closerange(3, orders.fileno())
    os.closerange(orders.fileno() + 1, 4096)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    supervisor.become_subreaper()
    gc.disable()
    gc.freeze()  # a collection would write to pages that a fork shares
    while True:
        data, fds, _flags, _address = socket.recv_fds(orders, 1, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        _fork_supervisor(orders, fds)


def _fork_supervisor(orders: socket.socket, fds: List[int]) -> None:
    control = socket.socket(fileno=fds[0])
    try:
        if os.fork() == 0:
            try:
                orders.close()
                supervisor.run(control, fds[1], fds[2:5], fds[5:])
            finally:
                os._exit(1)
    except OSError as problem:
        supervisor.report(control, failed=str(problem))
    control.close()
    for fd in fds[1:]:
        os.close(fd)
