"""The client through a Jupyter server: the same tests that it passes on the manager's own socket."""

import asyncio
import re
import runpy
from pathlib import Path

import pytest
from aiohttp import web

from jupyter_sandbox import SandboxError, get_async_sandbox, get_sandbox, list_sandboxes, temporary_sandbox
from jupyter_sandbox.client import elsewhere, spawn

from .servers import TOKEN

pytestmark = pytest.mark.bubblewrap

on_the_socket = runpy.run_path(str(Path(__file__).parent.parent / "client" / "test_real_sandboxes.py"))
"""What those tests do with a sandbox, by name."""


@pytest.fixture
def through_the_server(server, monkeypatch):
    """Every client of the test goes through the server."""
    monkeypatch.setenv("JUPYTER_SANDBOX_URL", server.api + "/")
    monkeypatch.setenv("JUPYTER_SANDBOX_TOKEN", TOKEN)
    yield server
    # What ends the environment talks to the manager itself: the server is gone by then.
    monkeypatch.delenv("JUPYTER_SANDBOX_URL")


def test_commands_files_and_code_in_one_sandbox(through_the_server):
    with temporary_sandbox(limits={"memory": "512m"}) as sandbox:
        for part in ("commands", "files", "code", "contexts"):
            on_the_socket[part](sandbox)
        on_the_socket["lifecycle"](sandbox, "bubblewrap")
    assert list_sandboxes() == []


async def test_the_async_face_does_many_things_at_once(through_the_server):
    async with temporary_sandbox() as sandbox:
        results = await asyncio.gather(*(sandbox.exec(f"echo {number}") for number in range(10)))
        assert [result.stdout for result in results] == [f"{number}\n" for number in range(10)]
        cells = await asyncio.gather(*(sandbox.run_code(f"print({number}); {number}") for number in range(10)))
        assert [cell.text for cell in cells] == [str(number) for number in range(10)]


async def test_a_slow_reader_of_a_real_channel_gets_every_byte(through_the_server):
    async with get_async_sandbox("flood") as sandbox:
        request = (await sandbox.channel()).execute("for _ in range(100): print('x' * 100_000)")
        size = 0
        async for message in request:
            assert request._bytes < 16 * 2**20
            if message.msg_type == "stream":
                size += len(message.content["text"])
        assert size == 100 * 100_001


def test_a_wrong_token_is_said_and_no_manager_is_started(through_the_server, monkeypatch):
    def refuse():
        raise AssertionError("the client started a manager")

    monkeypatch.setattr(spawn, "_spawn", refuse)
    monkeypatch.setenv("JUPYTER_SANDBOX_TOKEN", "wrong")
    with get_sandbox("one") as sandbox, pytest.raises(SandboxError, match="does not know who asks") as caught:
        sandbox.exec("ls")
    assert caught.value.code == "LOGIN_REQUIRED"
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "jupyter.example/sandbox/api",
        "ftp://jupyter.example/",
        "https://me:secret@jupyter.example/",
        "https://jupyter.example/?token=secret",
        "https://jupyter.example/#secret",
        "https://",
        "http://[::1/",
        "http://a:99999/",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(address, monkeypatch):
    monkeypatch.setenv("JUPYTER_SANDBOX_URL", address)
    with pytest.raises(SandboxError, match="JUPYTER_SANDBOX_URL") as caught:
        elsewhere.from_environment()
    assert caught.value.code == "INVALID_OPTION"
    assert "secret" not in str(caught.value)


def test_a_token_is_not_shown():
    assert "secret" not in repr(elsewhere.Elsewhere("https://jupyter.example", "secret"))


class OtherOrigin:
    """A server that remembers who asked it for what."""

    def __init__(self) -> None:
        self.asked = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, dict(request.headers)))
        return web.json_response({})


async def serve(handler):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_a_manager_elsewhere_is_not_told_of_the_python_of_this_machine(environment, monkeypatch):
    wishes = []

    async def answer(request):
        if request.method == "PUT":
            wishes.append(await request.json())
            return web.Response(text='{"sandbox": {"id": "one", "state": "running"}}\n')
        return web.json_response({"package": "0.1.0", "api": "1.0"})

    runner, url = await serve(answer)
    monkeypatch.setenv("JUPYTER_SANDBOX_URL", url)
    try:
        async with get_async_sandbox("one") as sandbox:
            await sandbox.start()
        assert [wish["interpreter"] for wish in wishes] == [None]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("redirected", ["/version", "/sandboxes/-/one", "/api/kernels", "/channels"])
async def test_a_credential_goes_only_to_the_origin_that_issued_it(redirected, environment, monkeypatch):
    other = OtherOrigin()
    elsewhere_runner, elsewhere_url = await serve(other.answer)

    async def redirect(request):
        if request.path.endswith(redirected):
            raise web.HTTPTemporaryRedirect(elsewhere_url + request.path)
        if request.path.endswith("/version"):
            return web.json_response({"package": "0.1.0", "api": "1.0"})
        if request.method == "PUT":
            return web.Response(text='{"sandbox": {"id": "one", "state": "running"}}\n')
        return web.json_response(
            {"id": "k", "context": "default", "language": "python", "created": True, "notice": None}
        )

    runner, url = await serve(redirect)
    monkeypatch.setenv("JUPYTER_SANDBOX_URL", url)
    monkeypatch.setenv("JUPYTER_SANDBOX_TOKEN", "secret")
    try:
        async with get_async_sandbox("one") as sandbox:
            with pytest.raises(SandboxError, match="sent us elsewhere") as caught:
                await sandbox.run_code("1")
        assert re.search(r"127\.0\.0\.1", str(caught.value))
        assert "secret" not in str(caught.value)
        assert other.asked == []
    finally:
        await runner.cleanup()
        await elsewhere_runner.cleanup()
