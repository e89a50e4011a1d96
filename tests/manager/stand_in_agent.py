"""A program that answers as an agent would, and misbehaves when asked to: what the manager's tests talk to.

It is started with the number of a listening socket and the id of its runtime. ``POST /exec`` obeys the command it
gets: ``echo X``, ``busy`` and ``idle`` (what ``/status`` says from then on), ``hold`` (answers, then never ends),
``torn`` (breaks off in the middle of a line), ``die`` (the whole process ends).
"""

import asyncio
import json
import os
import socket
import struct
import sys
from pathlib import Path

from aiohttp import WSMsgType, web

SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"

busy: list[dict[str, str]] = []
seen: list[str] = []
env: dict[str, str] = {}
ended_holds = 0


def frame(msg_type: str, text: str = "", channel: str = "shell") -> bytes:
    """A message as it stands on the wire."""
    parts = [channel.encode(), json.dumps({"msg_type": msg_type}).encode(), b"{}", b"{}", json.dumps(text).encode()]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)


async def status(_: web.Request) -> web.Response:
    body = {"runtime": sys.argv[2], "busy": busy, "contexts": [], "env": env, "seen": seen, "holds": ended_holds}
    return web.json_response(body)


async def put_env(request: web.Request) -> web.Response:
    env.clear()
    env.update((await request.json())["env"])
    return web.Response(status=204)


async def exec_(request: web.Request) -> web.StreamResponse:
    global ended_holds
    word, _, rest = (await request.json())["command"].partition(" ")
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    await response.write(json.dumps({"event": "stdout", "data": rest}).encode() + b"\n")
    if word == "die":
        os._exit(3)
    if word == "torn":
        await response.write(b'{"event": "std')
        request.transport.abort()
    if word in ("busy", "idle"):
        busy[:] = [{"kind": "exec", "name": "told so", "since": ""}] if word == "busy" else []
    try:
        while word == "hold":
            await asyncio.sleep(3600)
    finally:
        ended_holds += word == "hold"
    await response.write(json.dumps({"event": "result", "exit_code": 0, "timed_out": False, "duration": 0}).encode())
    await response.write(b"\n")
    return response


async def get_file(request: web.Request) -> web.StreamResponse:
    hostile = {
        "Set-Cookie": "a=b",
        "Location": "http://elsewhere/",
        "Access-Control-Allow-Origin": "*",
        "Service-Worker-Allowed": "/",
        "Content-Type": "text/html",
        "X-Seen": json.dumps(dict(request.headers)),
    }
    seen.append(json.dumps({"headers": dict(request.headers), "query": request.query_string}))
    if request.query["path"] == "torn":
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        request.transport.abort()
        return response
    return web.Response(body=Path(request.query["path"]).read_bytes(), headers=hostile)


async def put_file(request: web.Request) -> web.Response:
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
    seen.append(f"uploaded {size}")
    return web.Response(status=204, headers={"X-Size": str(size)})


async def context(request: web.Request) -> web.Response:
    return web.json_response({"id": "k", "context": (await request.json())["context"], "created": True}, status=201)


async def channels(request: web.Request) -> web.WebSocketResponse:
    if request.match_info["id"] == "unknown":
        raise web.HTTPNotFound
    ws = web.WebSocketResponse(protocols=(SUBPROTOCOL,), max_msg_size=0)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.BINARY:
            await answer(ws, message.data)
    return ws


async def answer(ws: web.WebSocketResponse, data: bytes) -> None:
    text = data.decode(errors="replace")
    seen.append("frame " + next((word for word in ("execute", "complete", "comm") if word in text), "other"))
    if "say text" in text:
        await ws.send_str("not binary")
    elif "say too much" in text:
        await ws.send_bytes(bytes(81 * 1024 * 1024))
    elif "close with" in text:
        await ws.close(code=int(text.split("close with ")[1][:4]))
    else:
        await ws.send_bytes(data)


def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(
        [
            web.get("/status", status),
            web.put("/env", put_env),
            web.post("/exec", exec_),
            web.get("/files", get_file),
            web.put("/files", put_file),
            web.post("/api/kernels", context),
            web.get("/api/kernels/{id}/channels", channels),
        ]
    )
    web.run_app(
        app,
        sock=socket.socket(fileno=int(sys.argv[1])),
        print=None,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.1,
    )


if __name__ == "__main__":
    main()
