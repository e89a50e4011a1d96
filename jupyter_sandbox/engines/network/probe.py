"""The proof that forbidden addresses cannot be reached: tried out of the sandbox's own network namespace.

The sockets are made on a thread that has entered the namespace, so the packets take the very way that those of user
code will take. An address is reached when somebody answers, be it by refusing: a closed port answers too, as long as
nothing stands between.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .rules import unavailable

Target = tuple[str, int]
"""An address (an IPv6 link-local one without its interface) and a TCP port."""

PATIENCE = 0.3
"""Seconds to wait for an answer. Everything asked is on this machine, where a kernel answers in microseconds."""

_CLONE_NEWNET = 0x40000000
_ANSWERED = (0, errno.ECONNREFUSED, errno.ECONNRESET)


def reached(pid: int, targets: Sequence[Target], patience: float = PATIENCE) -> list[Target]:
    """Those of ``targets`` that answer to a process in the network namespace of ``pid``.

    Raises
    ------
    SandboxError
        ``NETWORK_UNAVAILABLE`` if that namespace cannot be entered, or is this process's own.
    """
    with ThreadPoolExecutor(1) as thread:  # it ends with the namespace that it entered
        return thread.submit(_try_all, pid, targets, patience).result()


def _try_all(pid: int, targets: Sequence[Target], patience: float) -> list[Target]:
    _enter(pid)
    waiting: dict[int, tuple[socket.socket, Target]] = {}
    found = []
    for target in targets:
        attempt, code = _begin(target)
        if code == errno.EINPROGRESS:
            waiting[attempt.fileno()] = attempt, target
            continue
        attempt.close()
        if code in _ANSWERED:
            found.append(target)
    return [*found, *_answers(waiting, time.monotonic() + patience)]


def _enter(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise unavailable(f"The sandbox's network cannot be tried: {exc.strerror}.") from exc
    try:
        if os.fstat(namespace).st_ino == Path("/proc/self/ns/net").stat().st_ino:
            raise unavailable("The sandbox has the network of this machine.")
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            raise unavailable(f"The sandbox's network cannot be tried: {os.strerror(ctypes.get_errno())}.")
    finally:
        os.close(namespace)


def _begin(target: Target) -> tuple[socket.socket, int]:
    address, port = target
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        attempt = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as exc:  # a kernel without IPv6
        return socket.socket(), exc.errno or errno.EAFNOSUPPORT
    if family == socket.AF_INET6:
        return attempt, attempt.connect_ex((address, port, 0, _first_interface()))
    return attempt, attempt.connect_ex((address, port))


def _first_interface() -> int:
    """The one beside loopback; 0 if there is none."""
    return next((number for number, name in socket.if_nameindex() if name != "lo"), 0)


def _answers(waiting: dict[int, tuple[socket.socket, Target]], until: float) -> list[Target]:
    poll, found = select.poll(), []
    for number in waiting:
        poll.register(number, select.POLLOUT)
    while waiting and (left := until - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            poll.unregister(number)
            attempt, target = waiting.pop(number)
            if attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in _ANSWERED:
                found.append(target)
            attempt.close()
    for attempt, _ in waiting.values():
        attempt.close()
    return found
