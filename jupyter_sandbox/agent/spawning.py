"""The spawner: a small process, forked from the agent before it has threads, that forks everything else.

A fork of it is cheap, because it is small, and safe, because it has one thread. All it does is to fork a supervisor
(``supervisor.py``) with a recruit below it (``recruit.py``) around two sockets, whose other ends the agent keeps.
Orders go over those sockets, past the spawner: so one such pair can be forked in advance, and an order that is given
while the forks are under way waits in its socket. An order travels as a file in memory, so that the agent never
blocks, however long a command line is.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
from typing import Any, List, Mapping, NamedTuple, NoReturn, Optional, Sequence

from ..errors import SandboxError, error
from . import supervisor

_FDS = 2


class Team(NamedTuple):
    """The agent's ends of the sockets to a supervisor and to the recruit below it."""

    control: socket.socket
    orders: socket.socket

    def give(self, paper: int, stdio: Sequence[int], told: Mapping[str, Any], sinks: Sequence[int]) -> bool:
        """Have it do the order written on ``paper``; False if it is not there any more, and nothing was done."""
        try:
            if told:
                socket.send_fds(self.control, [json.dumps(told).encode()], sinks, socket.MSG_DONTWAIT)
            socket.send_fds(self.orders, [b"!"], [paper, *stdio], socket.MSG_DONTWAIT)
        except OSError:
            return False
        finally:
            self.orders.close()
        return True


class Spawner:
    """The agent's handle of its spawner; forks it when made, and anew should it have been killed."""

    def __init__(self) -> None:
        self._socket: Optional[socket.socket] = None
        self._spare: Optional[Team] = None
        self._start()

    def spawn(
        self, order: Mapping[str, Any], stdio: Sequence[int], told: Mapping[str, Any] = {}, sinks: Sequence[int] = ()
    ) -> socket.socket:
        """Start a process and return the (non-blocking) socket of its supervisor.

        Parameters
        ----------
        order:
            ``{"argv": [alternative, …], "cwd", "env", "rlimits"}``; the first alternative that exists runs.
        stdio:
            Descriptors of its standard input, output and error. The caller closes its copies.
        told, sinks:
            An order to the supervisor, with descriptors for it, that it knows before the process starts.
        """
        paper = memory_file(json.dumps(order).encode())
        try:
            spare, self._spare = self._spare, None
            if spare is not None:
                if spare.give(paper, stdio, told, sinks):
                    return spare.control
                spare.control.close()  # user code has the same uid and may have killed it
            team = self._new_team()
            team.give(paper, stdio, told, sinks)  # if it fails, ``control`` says why
            return team.control
        finally:
            os.close(paper)

    def prepare(self) -> None:
        """Fork in advance what the next process needs; for a moment at which nobody waits for anything."""
        if self._spare is None:
            with contextlib.suppress(SandboxError):  # the next process is told so, if it is still true then
                self._spare = self._new_team()

    def close(self) -> None:
        """Let the spawner and its spare team end; what was started goes on until the agent has ended."""
        if self._socket is not None:
            self._socket.close()
        if self._spare is not None:
            self._spare.control.close()
            self._spare.orders.close()

    def _new_team(self) -> Team:
        control, supervisors = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        orders, recruits = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with supervisors, recruits:
            try:
                self._send([supervisors.fileno(), recruits.fileno()])
            except OSError as problem:
                control.close()
                orders.close()
                raise error("START_FAILED", f"The sandbox cannot start a process: {problem}.") from problem
        control.setblocking(False)
        return Team(control, orders)

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
        data, fds, _flags, _address = socket.recv_fds(orders, 1, _FDS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        with socket.socket(fileno=fds[0]) as control, socket.socket(fileno=fds[1]) as recruits:
            _fork_supervisor(orders, control, recruits)


def _fork_supervisor(orders: socket.socket, control: socket.socket, recruits: socket.socket) -> None:
    try:
        if os.fork() == 0:
            try:
                orders.close()
                supervisor.run(control, recruits)
            finally:
                os._exit(1)
    except OSError as problem:
        supervisor.report(control, failed=str(problem))
