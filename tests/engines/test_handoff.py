"""The hand-off, with another thread in the place of the agent."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox.engines import handoff
from jupyter_sandbox.errors import SandboxError

Agent = Callable[[socket.socket], None]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "agent.sock"


async def shake(
    path: Path, agent: Callable[[socket.socket], None], payload: dict[str, Any], timeout: float = 20
) -> Any:
    """Do a hand-off with ``agent`` at the other end."""
    ours, theirs = socket.socketpair()

    def act() -> None:
        with theirs:
            agent(theirs)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        with ours, handoff.listener(path) as listening:
            return await handoff.handoff_over(ours, listening, payload, timeout)
    finally:
        thread.join()


def answering(line: bytes) -> Callable[[socket.socket], None]:
    def agent(sock: socket.socket) -> None:
        sock.recv(1 << 20)
        sock.sendall(line)

    return agent


def silent(sock: socket.socket) -> None:
    while sock.recv(1 << 20):
        pass


READY = b'{"ready": true, "api": "1.0"}\n'


async def test_the_agent_gets_the_listening_socket_with_the_first_byte_and_the_payload_whole(path: Path) -> None:
    received: dict[str, Any] = {}

    def agent(sock: socket.socket) -> None:
        head, fds, _, _ = socket.recv_fds(sock, 4, 1)
        size = int.from_bytes(head, "big")
        body = b""
        while len(body) < size:
            body += sock.recv(size - len(body))
        received["payload"] = json.loads(body)
        sock.sendall(READY)
        with socket.socket(fileno=fds[0]) as listening, listening.accept()[0] as client:
            client.sendall(b"served")

    def dial() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))
            received["said"] = client.recv(100)

    big = {"runtime": "r", "env": {f"NAME_{n}": "x" * 1000 for n in range(2000)}}
    dialer = threading.Timer(0.2, dial)
    dialer.start()
    assert (await shake(path, agent, big))["api"] == "1.0"
    dialer.join()
    assert received == {"payload": big, "said": b"served"}


async def test_the_socket_is_private_and_replaces_a_stale_one(path: Path) -> None:
    path.write_text("stale")
    with handoff.listener(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not os.get_inheritable(socket.socket().fileno())
    handoff.remove(path)
    handoff.remove(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "line",
    [
        *(b"not json\n", b"[]\n", b"{}\n", b'{"ready": 1}\n', b"\xff\xfe\n", b"x" * 200_000 + b"\n"),
        *(b"", b'{"ready": true}', b"[" * 60_000 + b"\n"),
    ],
    ids=lambda line: f"{line[:12]!r} {len(line)}",
)
async def test_an_answer_that_is_none_is_a_failed_start(path: Path, line: bytes) -> None:
    with pytest.raises(SandboxError) as caught:
        await shake(path, answering(line), {})
    assert caught.value.code == "START_FAILED"


async def test_the_agents_error_is_raised_as_it_is(path: Path) -> None:
    body = {"error": {"code": "IMAGE_NOT_USABLE", "message": "No.", "remedy": "Do.", "details": {"a": 1}}}
    with pytest.raises(SandboxError) as caught:
        await shake(path, answering(json.dumps(body).encode() + b"\n"), {})
    assert (caught.value.code, caught.value.message, caught.value.remedy) == ("IMAGE_NOT_USABLE", "No.", "Do.")


async def test_an_agent_that_does_not_answer_is_a_start_timeout(path: Path) -> None:
    with pytest.raises(SandboxError) as caught:
        await shake(path, silent, {}, timeout=0.2)
    assert caught.value.code == "START_TIMEOUT"
