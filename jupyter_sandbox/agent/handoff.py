"""The hand-off: how an agent gets its listening socket and its settings from the engine (docs/protocol.md).

One stream socket, used once: a length and a JSON object come in, with the listening socket as ancillary data of
the first byte; one line of JSON goes back when the agent can answer, or why it cannot.
"""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, Optional

MAX_BYTES = 16 * 2**20
"""Upper bound of the hand-off object; the environment of a sandbox is what fills it."""

_MAX_ANSWER = 64 * 2**10


class Handoff:
    """What the engine handed over. ``listener`` is the socket to serve the API on."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection: Optional[socket.socket] = connection
        self.listener, body = _receive(connection)
        self.runtime = str(body.get("runtime", ""))
        self.env: Dict[str, str] = {str(k): str(v) for k, v in (body.get("env") or {}).items()}
        self.preload = bool(body.get("preload"))
        limits = {"RLIMIT_DATA": body.get("memory"), "RLIMIT_NPROC": body.get("pids")}
        self.rlimits: Dict[str, int] = {name: int(value) for name, value in limits.items() if value is not None}

    @classmethod
    def from_fd(cls, fd: int) -> Handoff:
        """Over an inherited socket (bubblewrap)."""
        return cls(socket.socket(fileno=fd))

    @classmethod
    def from_path(cls, path: str) -> Handoff:
        """Over a socket that the engine listens on (Docker)."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        return cls(connection)

    def answer(self, body: Dict[str, Any]) -> None:
        """Send the one answer and close; a second answer is dropped, and so is one that nobody reads."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with connection:
            try:
                connection.sendall(json.dumps(body).encode()[: _MAX_ANSWER - 1] + b"\n")
            except OSError:
                return  # the engine has gone; it will end this process, too


def _receive(connection: socket.socket) -> tuple[socket.socket, Dict[str, Any]]:
    connection.set_inheritable(False)
    data, fds, _flags, _address = socket.recv_fds(connection, 4, 1, socket.MSG_CMSG_CLOEXEC)
    if not fds:
        raise SystemExit("agent: the hand-off brought no listening socket")
    listener = socket.socket(fileno=fds[0])
    size = int.from_bytes(_exactly(connection, 4 - len(data), data), "big")
    if size > MAX_BYTES:
        raise SystemExit(f"agent: the hand-off says {size} bytes, more than {MAX_BYTES}")
    return listener, json.loads(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int, data: bytes = b"") -> bytes:
    wanted = len(data) + size
    while len(data) < wanted:
        piece = connection.recv(wanted - len(data))
        if not piece:
            raise SystemExit("agent: the hand-off ended early")
        data += piece
    return data
