"""The recruit: forked in advance below its supervisor, it waits for an order and turns into the process asked for.

What costs time is over when the order comes: two forks, and the copies of those pages of memory that are written to
from now on, which the kernel makes one by one. All that is left is to put on what the order names.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
from typing import Any, Dict, Sequence

MAX_FDS = 4
"""Descriptors that come with an order: the paper it is written on, and standard input, output and error."""

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


def serve(orders: socket.socket, supervisor: int) -> None:
    """Wait for the one order on ``orders`` and become what it says; returns only if there is none.

    Parameters
    ----------
    supervisor:
        The process above. Should it be killed, this one dies with it, as a recruit and as what it became: without
        it nobody could end what is below.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        return
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    _suffer_first()
    _rehearse()
    data, fds, _flags, _address = socket.recv_fds(orders, 1, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    if data:
        with open(fds[0], "rb") as paper:
            order = json.load(paper)
        _become(order, fds[1:])


def _rehearse() -> None:
    order = json.loads(json.dumps({"argv": [["/"]], "env": dict(os.environ)}))
    with contextlib.suppress(OSError):
        _execute(order)


def _become(order: Dict[str, Any], stdio: Sequence[int]) -> None:
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    try:
        for name, limit in order["rlimits"].items():
            _lower(getattr(resource, name), limit)
        os.chdir(order["cwd"])
        with contextlib.suppress(PermissionError):
            os.nice(5)  # the last thing: until here the caller waits for us, not for user code
        _execute(order)
    except BaseException as problem:  # whatever it is, only the caller of the command is left to be told
        os.write(2, f"sandbox: cannot start {order['argv'][-1][0]}: {problem}\n".encode("utf-8", "replace"))


def _execute(order: Dict[str, Any]) -> None:
    for argv in order["argv"]:
        try:
            os.execvpe(argv[0], argv, order["env"])  # noqa: S606 - the argument is what was asked for
        except FileNotFoundError as problem:
            missing = problem
    raise missing


def _suffer_first() -> None:
    """The agent has to answer when user code takes all memory: this process is the first to be ended for it."""
    # Without /proc, or with an odd one, the kernel chooses by size, which also spares the agent.
    with contextlib.suppress(OSError, ValueError):
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR)
        score = min(1000, int(os.read(fd, 20)) + 500)
        os.pwrite(fd, b"%d" % score, 0)
        os.close(fd)


def _lower(which: int, limit: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (value, value))
