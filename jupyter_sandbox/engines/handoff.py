"""The engine's side of the hand-off: an agent gets its listening socket and its settings, and says "ready".

The socket on which an agent answers is bound here, outside of the sandbox, and only its descriptor goes in
(design section 8, "Connecting"): no host process ever follows a path that a sandbox could have made. The bytes
are those of docs/protocol.md, "Hand-off". The bubblewrap engine sends them over an inherited socket pair, the
Docker engine over a connection that it accepted.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import SandboxError, error, error_from_json

ANSWER_LIMIT = 64 * 1024
"""Bytes of the agent's one line; more is not an answer."""

_BACKLOG = 128


def listener(path: Path) -> socket.socket:
    """Bind a listening Unix socket at ``path`` (0600), replacing what an earlier runtime left there.

    Parameters
    ----------
    path:
        In a directory that only we can write (0700), at most 107 bytes long.

    Returns
    -------
    socket.socket
        To be handed to the agent and then closed here; the path stays until :func:`remove`.
    """
    remove(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind(os.fspath(path))
        path.chmod(0o600)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        remove(path)
        raise
    return sock


def remove(path: Path) -> None:
    """Remove the socket at ``path``, if there is one."""
    path.unlink(missing_ok=True)


async def handoff_over(
    sock: socket.socket,
    listening: socket.socket,
    payload: Mapping[str, Any],
    timeout: float,  # noqa: ASYNC109 - one limit for the whole exchange, so that the error can name it
) -> dict[str, Any]:
    """Hand ``listening`` and ``payload`` to the agent at the other end of ``sock``; return when it is ready.

    Parameters
    ----------
    sock:
        A connected Unix stream socket; made non-blocking here and left open.
    listening:
        The socket that the agent is to serve.
    payload:
        The hand-off object of docs/protocol.md.
    timeout:
        Seconds until the agent must have answered.

    Returns
    -------
    dict
        The agent's answer. It comes out of a sandbox: nothing in it is to be trusted.

    Raises
    ------
    SandboxError
        ``START_TIMEOUT``, ``START_FAILED`` if the agent ended or answered nonsense, or the error that it named.
    """
    sock.setblocking(False)
    try:
        async with asyncio.timeout(timeout):
            await _send(sock, listening, json.dumps(dict(payload)).encode())
            line = await _read_line(sock)
    except TimeoutError as exc:
        raise error("START_TIMEOUT", f"The agent of the sandbox was not ready within {timeout:.0f} seconds.") from exc
    except ConnectionError as exc:
        raise _ended() from exc
    return _answer(line)


async def _send(sock: socket.socket, listening: socket.socket, body: bytes) -> None:
    data = struct.pack(">I", len(body)) + body
    # A fresh socket takes at least the first byte, and with it the descriptor, without blocking.
    sent = socket.send_fds(sock, [data], [listening.fileno()])
    if sent < len(data):  # an agent that is quick has answered and closed by now: sending nothing would fail
        await asyncio.get_running_loop().sock_sendall(sock, data[sent:])


async def _read_line(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        if len(line) > ANSWER_LIMIT:
            raise _nonsense()
        chunk = await loop.sock_recv(sock, 8192)
        if not chunk:
            raise _ended()
        line += chunk
    return line


def _answer(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise _nonsense() from exc
    if isinstance(answer, dict) and "error" in answer:
        raise error_from_json(answer)
    if not isinstance(answer, dict) or answer.get("ready") is not True:
        raise _nonsense()
    return answer


def _ended() -> SandboxError:
    return error("START_FAILED", "The agent of the sandbox ended before it was ready.")


def _nonsense() -> SandboxError:
    return error("START_FAILED", "The agent of the sandbox gave an answer that cannot be read.")
