"""A small manager that speaks the protocol in this process, and misbehaves in the way that its subclass is named for.

It stands in for no engine: what runs in it is scripted. The client's own handling of failures is what it tests; that
the client works is shown with the real manager (``test_real_*.py``).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import WSMsgType, web

from jupyter_sandbox import paths
from jupyter_sandbox.client.wire import SUBPROTOCOL, Message, decode, encode, new_header
from jupyter_sandbox.errors import SandboxError, error

KERNEL = "0f0f0f0f-0000-4000-8000-000000000000"
Reply = tuple[str, str, dict[str, Any]]
"""Channel, message type and content of one message that the scripted kernel sends."""


class ScriptedManager:
    """One manager with any number of sandboxes, whose commands and kernels do what the test says."""

    package, api, idle = "0.1.0", "1.0", False

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.sandboxes: dict[str, dict[str, Any]] = {}
        self.kernels = 0
        self.sockets: set[web.WebSocketResponse] = set()
        self.interrupted: asyncio.Event
        self.sent = 0
        self.usage: dict[str, Any] = {}
        self.previous_end: str | None = None
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._runner: web.AppRunner | None = None

    # --- what a test may script --------------------------------------------------------------------

    async def exec(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield event(event="stdout", data=body["command"])
        yield event(event="result", exit_code=0, timed_out=False, duration=0.01)

    async def cell(self, code: str) -> AsyncIterator[Reply]:
        yield "iopub", "stream", {"name": "stdout", "text": code}

    async def before(self, request: web.Request) -> None:
        """Called with every request."""

    # --- routes ------------------------------------------------------------------------------------

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._errors], client_max_size=2**26)
        one, agent = "/sandboxes/-/{id}", "/sandboxes/-/{id}/agent"
        app.router.add_get("/version", self._version)
        app.router.add_post("/handover", self._handover)
        app.router.add_get("/sandboxes", self._list)
        app.router.add_get(one, self._get)
        app.router.add_put(one, self._put)
        app.router.add_delete(one, self._delete)
        app.router.add_post(agent + "/exec", self._exec)
        app.router.add_get(agent + "/files", self._file)
        app.router.add_post(agent + "/api/kernels", self._kernel)
        app.router.add_get(agent + "/api/kernels/{kernel}", self._kernel)
        app.router.add_post(agent + "/api/kernels/{kernel}/interrupt", self._interrupt)
        app.router.add_get(agent + "/api/kernels/{kernel}/channels", self._channels)
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        as_json = json.loads(body) if body[:1] == b"{" else body
        self.requests.append((request.method, request.path, as_json))
        try:
            await self.before(request)
            if "/agent/" in request.path and request.match_info["id"] not in self.sandboxes:
                raise error("SANDBOX_NOT_FOUND")
            return await handler(request)
        except SandboxError as problem:
            return web.json_response(problem.to_json(), status=problem.http_status)

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"package": self.package, "api": self.api, "pid": 0, "owner": "me", "idle": self.idle})

    async def _handover(self, request: web.Request) -> web.Response:
        return web.json_response({}, status=202)

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"sandboxes": list(self.sandboxes.values())})

    def status(self, name: str) -> dict[str, Any]:
        return {**self.sandboxes[name], "usage": self.usage, "previous_end": self.previous_end}

    async def _get(self, request: web.Request) -> web.Response:
        if (name := request.match_info["id"]) not in self.sandboxes:
            raise error("SANDBOX_NOT_FOUND")
        return web.json_response({"sandbox": self.status(name)})

    async def _put(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        self.sandboxes.setdefault(name, {"id": name, "state": "running"})
        lines = [{"step": "container"}, {"step": "agent"}, {"sandbox": self.status(name)}]
        return web.Response(text="".join(json.dumps(line) + "\n" for line in lines))

    async def _delete(self, request: web.Request) -> web.Response:
        self.sandboxes.pop(request.match_info["id"], None)
        return web.Response(status=204)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for part in self.exec(await request.json()):
            await response.write(part)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        return web.Response(body=b"content of " + request.query["path"].encode())

    async def _kernel(self, request: web.Request) -> web.Response:
        body = {"id": KERNEL, "context": "default", "language": "python", "created": False, "notice": None}
        return web.json_response(body)

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.interrupted.set()
        return web.Response(status=204)

    async def _channels(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False, max_msg_size=0)
        await socket.prepare(request)
        self.sockets.add(socket)
        async for frame in socket:
            if frame.type is WSMsgType.BINARY:
                await self.received(socket, decode(frame.data))
        self.sockets.discard(socket)
        return socket

    async def received(self, socket: web.WebSocketResponse, message: Message) -> None:
        if message.msg_type == "execute_request":
            await self.run(socket, message)
        elif message.msg_type == "complete_request":
            await socket.send_bytes(answer(message, "shell", "complete_reply", {"matches": ["a"], "status": "ok"}))

    async def run(self, socket: web.WebSocketResponse, request: Message) -> None:
        await socket.send_bytes(answer(request, "iopub", "status", {"execution_state": "busy"}))
        async for channel, kind, content in self.cell(request.content["code"]):
            await socket.send_bytes(answer(request, channel, kind, content))
            self.sent += 1
        reply = {"status": "ok", "execution_count": 1}
        await socket.send_bytes(answer(request, "shell", "execute_reply", reply))
        await socket.send_bytes(answer(request, "iopub", "status", {"execution_state": "idle"}))

    # --- its life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        self.interrupted = asyncio.Event()
        self._runner = web.AppRunner(self.app(), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(paths.manager_socket())).start()

    async def vanish(self) -> None:
        """Go away as a killed process does: every connection breaks, nobody listens."""
        for socket in list(self.sockets):
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()
        if self._runner is not None:
            for handler in list(self._runner.server.connections if self._runner.server else ()):
                if handler.transport is not None:
                    handler.transport.abort()
            await self._runner.cleanup()
            self._runner = None
        paths.manager_socket().unlink(missing_ok=True)

    def in_its_thread(self, coroutine: Any) -> Any:
        """Run something on the manager's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    @contextmanager
    def running(self) -> Iterator[ScriptedManager]:
        """Serve from a thread of its own, as another process would."""
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="scripted manager")
        thread.start()
        try:
            self.in_its_thread(self.start())
            yield self
        finally:
            self.in_its_thread(self.vanish())
            self.in_its_thread(end_every_task())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def asked(self, method: str, ending: str) -> int:
        """How often something was asked for."""
        return sum(1 for verb, path, _ in self.requests if verb == method and path.endswith(ending))


async def end_every_task() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def event(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def answer(request: Message, channel: str, kind: str, content: dict[str, Any]) -> bytes:
    return encode(channel, new_header(kind, "kernel"), content, parent=request.header)


def unparented(channel: str, kind: str, content: dict[str, Any]) -> bytes:
    return encode(channel, new_header(kind, "kernel"), content)
