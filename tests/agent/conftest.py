"""A real agent on the host, started through a socket pair as an engine does it, and clients to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jupyter_sandbox.agent import wire

PROTOCOL = "v1.kernel.websocket.jupyter.org"


@dataclass
class Channel:
    """A client's side of a kernel's WebSocket."""

    ws: aiohttp.ClientWebSocketResponse
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def send(self, msg_type: str, content: dict[str, Any], channel: str = "shell", parent: Any = None) -> str:
        msg_id = uuid.uuid4().hex
        header = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "username": "t",
            "session": self.session,
            "date": "2026-01-01T00:00:00Z",
            "version": "5.4",
        }
        parts = [json.dumps(p).encode() for p in (header, parent or {}, {}, content)]
        await self.ws.send_bytes(wire.to_frame(channel, parts))
        return msg_id

    async def receive(self) -> dict[str, Any]:
        frame = await asyncio.wait_for(self.ws.receive(), 30)
        assert frame.type == aiohttp.WSMsgType.BINARY, (frame.type, frame.data, frame.extra)
        data: bytes = frame.data
        count = int.from_bytes(data[:8], "little")
        offsets = struct.unpack_from(f"<{count}Q", data, 8)
        parts = [data[a:b] for a, b in itertools.pairwise(offsets[1:])]
        header, parent, metadata, content = (json.loads(p) for p in parts[:4])
        return {
            "channel": data[offsets[0] : offsets[1]].decode(),
            "type": header["msg_type"],
            "header": header,
            "parent": parent.get("msg_id"),
            "metadata": metadata,
            "content": content,
            "buffers": parts[4:],
            "size": len(data),
        }

    async def run(self, code: str, **more: Any) -> list[dict[str, Any]]:
        """Run code; all its messages, up to its reply and idle."""
        return await self.finish(await self.start(code, **more))

    async def start(self, code: str, **more: Any) -> str:
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        return await self.send("execute_request", {**content, **more})

    async def finish(self, msg_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        open_ends = {"reply", "idle"}
        while open_ends:
            message = await self.receive()
            if message["parent"] != msg_id:
                continue
            found.append(message)
            if message["type"] == "execute_reply":
                open_ends.discard("reply")
            if message["type"] == "status" and message["content"]["execution_state"] == "idle":
                open_ends.discard("idle")
        return found

    async def closed(self) -> int | None:
        """Wait until the agent closes; its code."""
        while (frame := await asyncio.wait_for(self.ws.receive(), 30)).type == aiohttp.WSMsgType.BINARY:
            pass
        assert frame.type == aiohttp.WSMsgType.CLOSE
        code: int = frame.data
        return code

    async def until(self, msg_type: str, **content: Any) -> dict[str, Any]:
        """The next message of a type with this content."""
        while True:
            message = await self.receive()
            if message["type"] == msg_type and content.items() <= message["content"].items():
                return message


def text(messages: list[dict[str, Any]], name: str = "stdout") -> str:
    """All that was written to a stream."""
    return "".join(m["content"]["text"] for m in messages if m["type"] == "stream" and m["content"]["name"] == name)


def value(messages: list[dict[str, Any]]) -> str:
    """The text of the result."""
    return next(m["content"]["data"]["text/plain"] for m in messages if m["type"] == "execute_result")


@dataclass
class Agent:
    """A running agent, its directories, and an HTTP session that reaches it."""

    process: subprocess.Popen[bytes]
    ready: dict[str, Any]
    workspace: Path
    home: Path
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, status: int, **more: Any) -> Any:
        async with self.session.request(method, f"http://agent{path}", **more) as answer:
            body = await answer.read()
            assert answer.status == status, (answer.status, body)
            return json.loads(body) if body and "json" in answer.content_type else body

    async def exec(self, command: str, **more: Any) -> dict[str, Any]:
        """Run a command; its result with its whole output."""
        out = {"stdout": "", "stderr": ""}
        async with self.session.post("http://agent/exec", json={"command": command, **more}) as answer:
            assert answer.status == 200, await answer.read()
            async for line in answer.content:
                event = json.loads(line)
                if event["event"] == "result":
                    return {**event, **out}
                out[event["event"]] += event["data"]
        raise AssertionError("no result")

    async def kernel(self, **body: Any) -> dict[str, Any]:
        async with self.session.post("http://agent/api/kernels", json=body) as answer:
            assert answer.status in (200, 201), await answer.read()
            return {**await answer.json(), "status": answer.status}

    @contextlib.asynccontextmanager
    async def channel(self, kernel_id: str) -> AsyncIterator[Channel]:
        url = f"http://agent/api/kernels/{kernel_id}/channels"
        async with self.session.ws_connect(url, protocols=[PROTOCOL], max_msg_size=0) as ws:
            assert ws.protocol == PROTOCOL
            yield Channel(ws)


@contextlib.asynccontextmanager
async def running_agent(
    handoff: dict[str, Any] | None = None,
    command: list[str] | None = None,
    places: list[str] | None = None,
    end: int = signal.SIGTERM,
) -> AsyncIterator[Agent]:
    """Start an agent as an engine does, with directories of its own; end it and all that it started."""
    base = Path(tempfile.mkdtemp(prefix="jsb-"))
    try:
        for name in ("workspace", "home"):
            (base / name).mkdir()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(base / "agent.sock"))
        listener.listen(64)
        ours, theirs = socket.socketpair()
        places = places or ["--workspace", str(base / "workspace"), "--home", str(base / "home")]
        program = command or [sys.executable, "-m", "jupyter_sandbox.agent"]
        process = subprocess.Popen(
            [*program, "--handoff-fd", str(theirs.fileno()), *places],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        body = json.dumps(
            {"runtime": "r1", "env": {}, "pids": None, "memory": None, "preload": False, **(handoff or {})}
        )
        with ours, listener:
            socket.send_fds(ours, [len(body).to_bytes(4, "big")], [listener.fileno()])
            ours.sendall(body.encode())
            ours.settimeout(20)
            ready = json.loads(await asyncio.to_thread(ours.makefile("rb").readline))
        connector = aiohttp.UnixConnector(str(base / "agent.sock"), limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
            yield Agent(process, ready, base / "workspace", base / "home", session)
    finally:
        process.send_signal(end)
        try:
            await asyncio.to_thread(process.wait, 10)
        finally:
            process.kill()
            shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with running_agent() as found:
        yield found


def names_in(directory: Path | str) -> list[str]:
    """The names of what is in a directory."""
    return [entry.name for entry in Path(directory).iterdir()]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pids_with(marker: str) -> Iterator[int]:
    """Every running process that has ``marker`` in its command line."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in (directory / "cmdline").read_bytes() and alive(int(directory.name)):
                    yield int(directory.name)
