"""What a browser or a script gets through the Jupyter server."""

import asyncio
import json
import os
import signal

import aiohttp
import pytest

from jupyter_sandbox.client.wire import MAX_FRAME, SUBPROTOCOL, decode, encode, new_header

pytestmark = pytest.mark.bubblewrap

ONE = "/sandboxes/-/one"
AGENT = ONE + "/agent"


async def ask(client, server, method, path, **options):
    async with client.request(method, server.at(path), **options) as answer:
        body = await answer.read()
        return answer.status, json.loads(body) if body else None, answer.headers


async def exec_events(answer):
    return [json.loads(line) async for line in answer.content]


async def test_a_sandbox_from_its_creation_to_its_end(server):
    async with server.client() as client:
        assert (await ask(client, server, "GET", "/version"))[1]["api"] == "1.0"
        assert await listed(client, server) == []
        assert (await ask(client, server, "GET", ONE))[1]["error"]["code"] == "SANDBOX_NOT_FOUND"
        status, made, _ = await ask(client, server, "PUT", ONE, json={"options": {"sleep_after": 300}})
        assert (status, made["sandbox"]["state"]) == (200, "running")
        _, longer, _ = await ask(client, server, "POST", ONE + "/extend", json={"duration": "30m"})
        assert longer["sandbox"]["sleeps_at"] > made["sandbox"]["sleeps_at"]
        owner = made["sandbox"]["owner"].replace(":", "%3A")
        assert (await ask(client, server, "GET", f"/sandboxes/{owner}/one"))[0] == 200
        assert (await ask(client, server, "GET", "/sandboxes/os%3Asomebody/one"))[0] == 404
        assert (await ask(client, server, "POST", ONE + "/sleep", json={}))[1]["sandbox"]["state"] == "sleeping"
        assert await listed(client, server) == [("one", "sleeping")]
        status, asleep, _ = await ask(client, server, "GET", AGENT + "/status")
        assert (status, asleep["error"]["code"]) == (409, "SANDBOX_ASLEEP")
        assert (await ask(client, server, "POST", ONE + "/wake", json={}))[1]["sandbox"]["state"] == "running"
        assert (await ask(client, server, "DELETE", ONE))[0] == 204
        assert await listed(client, server) == []


async def listed(client, server):
    _, body, _ = await ask(client, server, "GET", "/sandboxes")
    return [(line["id"], line["state"]) for line in body["sandboxes"]]


async def test_commands_and_files_pass_as_streams(server):
    async with server.client() as client:
        await ask(client, server, "PUT", ONE, json={})
        command = {"command": "echo first; read line; echo got $line", "stdin": "c2Vjb25kCg=="}
        async with client.post(server.at(AGENT + "/exec"), json=command) as answer:
            events = await exec_events(answer)
        assert "".join(event.get("data", "") for event in events) == "first\ngot second\n"
        assert events[-1]["exit_code"] == 0

        content = bytes(range(256)) * 40_000
        sent = []

        async def chunks():
            for start in range(0, len(content), 65536):
                sent.append(start)
                yield content[start : start + 65536]

        assert (await ask(client, server, "PUT", AGENT + "/files?path=a%20b", data=chunks()))[0] == 204
        async with client.get(server.at(AGENT + "/files?path=a%20b")) as answer:
            assert await answer.read() == content
            assert answer.headers["Content-Disposition"] == "attachment"
        status, missing, _ = await ask(client, server, "GET", AGENT + "/files?path=a+c")
        assert (status, missing["error"]["code"]) == (404, "FILE_NOT_FOUND")


async def test_what_comes_from_a_sandbox_may_do_nothing_in_a_browser(start_server):
    server = start_server(tornado_settings={"headers": {"Content-Security-Policy": "default-src *"}})
    async with server.client() as client:
        await ask(client, server, "PUT", ONE, json={})
        page = b"<script>alert(1)</script>"
        await ask(client, server, "PUT", AGENT + "/files?path=page.html", data=page)
        async with client.get(server.at(AGENT + "/files?path=page.html")) as answer:
            assert await answer.read() == page
            assert answer.headers.getall("Content-Security-Policy") == ["sandbox; default-src 'none'"]
            assert answer.headers.getall("X-Content-Type-Options") == ["nosniff"]
            assert answer.headers["Content-Disposition"] == "attachment"
            assert answer.headers["Cache-Control"] == "no-store"


async def test_an_upload_is_passed_on_while_it_comes_and_a_refused_one_is_answered(server):
    async with server.client() as client:
        half = asyncio.Event()

        async def upload():
            yield b"x" * 100_000
            half.set()
            yield b"x" * 20_000_000

        status, body, _ = await ask(client, server, "PUT", AGENT + "/files?path=x", data=upload())
        assert (status, body["error"]["code"], half.is_set()) == (404, "SANDBOX_NOT_FOUND", True)


async def test_a_command_ends_when_its_caller_goes_away(server):
    async with server.client() as client:
        await ask(client, server, "PUT", ONE, json={})
        command = {"command": "echo started; sleep 1000"}
        answer = await client.post(server.at(AGENT + "/exec"), json=command)
        assert b"started" in await answer.content.readline()
        assert (await ask(client, server, "GET", AGENT + "/status"))[1]["busy"]
        answer.close()
        async with asyncio.timeout(30):
            while (await ask(client, server, "GET", AGENT + "/status"))[1]["busy"]:
                await asyncio.sleep(0.1)


NO_ROUTES = [
    "/handover",
    "/nothing",
    ONE + "/agent/../../../../handover",
    "/sandboxes/-/%2e%2e",
    ONE + "/agent/%2e%2e/%2e%2e/handover",
    ONE + "/agent/env",
    ONE + "/agent/ports/8000/",
]


async def test_what_is_no_route_reaches_nothing(server):
    async with server.client() as client:
        for path in NO_ROUTES:
            async with client.post(server.at(path), json={}) as answer:
                assert answer.status in (404, 405), (path, await answer.text())


async def test_a_cell_through_a_channel(server):
    async with server.client() as client:
        await ask(client, server, "PUT", ONE, json={"preload": True})
        _, kernel, _ = await ask(client, server, "POST", AGENT + "/api/kernels", json={"context": "default"})
        path = f"{AGENT}/api/kernels/{kernel['id']}/channels"
        async with client.ws_connect(
            server.at(path), protocols=("other", SUBPROTOCOL), max_msg_size=MAX_FRAME
        ) as socket:
            assert socket.protocol == SUBPROTOCOL
            assert await run(socket, "print(6 * 7)") == "42\n"
            big = "x" * 11 * 1024**2  # More than tornado's own limit.
            assert await run(socket, f"print(len({big!r}))") == f"{len(big)}\n"
            await ask(client, server, "DELETE", ONE)
            last = await until_closed(socket)
            assert (last.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 4404)


async def run(socket, code):
    header = new_header("execute_request", "test")
    await socket.send_bytes(encode("shell", header, {"code": code, "silent": False, "allow_stdin": False}))
    texts = []
    async for frame in socket:
        message = decode(frame.data)
        if message.parent_id != header["msg_id"]:
            continue
        if message.msg_type == "stream":
            texts.append(message.content["text"])
        if message.content.get("execution_state") == "idle":
            return "".join(texts)
    raise AssertionError(f"closed with {socket.close_code}")


async def until_closed(socket):
    async with asyncio.timeout(30):
        while (frame := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
            pass
    return frame


REFUSED_CHANNELS = [
    (AGENT + "/api/kernels/none/channels", (SUBPROTOCOL,), 404),
    (AGENT + "/api/kernels/none/channels", ("other",), 400),
    ("/sandboxes/-/two/agent/api/kernels/none/channels", (SUBPROTOCOL,), 404),
    (AGENT + "/ports/8000/", (), 404),
]


async def test_a_channel_that_the_manager_refuses_is_never_opened(server):
    async with server.client() as client:
        await ask(client, server, "PUT", ONE, json={})
        for path, protocols, status in REFUSED_CHANNELS:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await client.ws_connect(server.at(path), protocols=protocols)
            assert refusal.value.status == status, path


async def test_a_manager_that_is_killed_ends_a_stream_with_an_error_and_the_next_request_starts_another(
    server, environment
):
    async with server.client() as client:
        await ask(client, server, "PUT", ONE, json={})
        command = {"command": "echo started; sleep 1000"}
        async with client.post(server.at(AGENT + "/exec"), json=command) as answer:
            await answer.content.readline()
            os.kill(environment.manager_pid, signal.SIGKILL)
            rest = [json.loads(line) async for line in answer.content if line.strip()]
        assert rest[-1]["error"]["code"] == "MANAGER_UNAVAILABLE"
        assert await listed(client, server) == [("one", "running")]


async def test_changes_are_a_stream(server):
    async with server.client() as client, client.get(server.at("/events")) as events:
        await ask(client, server, "PUT", ONE, json={})
        states = []
        while "running" not in states:
            event = json.loads(await events.content.readline())
            assert event["id"] == "one"
            states.append(event["state"])
