"""Commands: a stream without a result is an error, limits hold, bad events are refused."""

import asyncio
import json

import pytest

from jupyter_sandbox import CommandFailed, ExecutionTimeout, SandboxError, get_async_sandbox
from jupyter_sandbox.client import commands, ndjson

from .servers import ScriptedManager, event


class ManagerThatStreams(ScriptedManager):
    """Answers every command with these bytes."""

    def __init__(self, *parts: bytes) -> None:
        super().__init__()
        self.parts = parts

    async def exec(self, body):
        for part in self.parts:
            yield part


RESULT = event(event="result", exit_code=0, timed_out=False, duration=0.5)


def test_output_is_joined_in_order_whatever_the_pieces(serve, sandbox):
    stream = event(event="stdout", data="a\n") + event(event="stderr", data="é") + event(event="stdout", data="b")
    pieces = [bytes([byte]) for byte in stream + RESULT]
    serve(ManagerThatStreams(*pieces))
    result = sandbox.exec("x")
    assert (result.stdout, result.stderr, result.exit_code, result.duration) == ("a\nb", "é", 0, 0.5)
    assert result.success
    assert "stdout='a\\nb'" in repr(result)


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (event(event="stdout", data="x"),),
        (event(event="stdout", data=5),),
        (event(event="other", data="x"),),
        (b"nonsense\n",),
        (b"[]\n",),
        (b"[" * 50_000 + b"\n",),
        (RESULT[:-20],),
        (event(event="result", exit_code="0", timed_out=False, duration=0),),
        (event(event="result", exit_code=True, timed_out=False, duration=0),),
        (event(event="result", exit_code=0, timed_out=None, duration=0),),
        (event(event="result", exit_code=0, timed_out=False, duration=float("nan")),),
        (event(event="result"),),
    ],
)
def test_a_stream_without_a_good_result_is_an_error_never_exit_0(serve, sandbox, parts):
    serve(ManagerThatStreams(*parts))
    with pytest.raises(SandboxError) as caught:
        sandbox.exec("x")
    assert caught.value.code == "OUTPUT_INVALID"


def test_an_error_at_the_end_of_the_stream_is_raised(serve, sandbox):
    body = {"error": {"code": "OUT_OF_MEMORY", "message": "No memory.", "remedy": "", "details": {}}}
    serve(ManagerThatStreams(event(event="stdout", data="x"), json.dumps(body).encode()))
    with pytest.raises(SandboxError, match="No memory"):
        sandbox.exec("x")


def test_a_timeout_is_a_result_and_raises_with_check(serve, sandbox):
    serve(ManagerThatStreams(event(event="result", exit_code=-9, timed_out=True, duration=1.0)))
    result = sandbox.exec("sleep 9", timeout=1)
    assert (result.timed_out, result.exit_code, result.success) == (True, 124, False)
    with pytest.raises(ExecutionTimeout, match="longer than 1 seconds") as caught:
        sandbox.exec("sleep 9", timeout=1, check=True)
    assert caught.value.details["result"]["timed_out"] is True


def test_check_raises_with_the_output_in_its_details(serve, sandbox):
    serve(
        ManagerThatStreams(
            event(event="stderr", data="a\nno such file\n"),
            event(event="result", exit_code=3, timed_out=False, duration=0),
        )
    )
    with pytest.raises(CommandFailed, match="'cat x' ended with exit code 3: no such file") as caught:
        sandbox.exec("cat x", check=True)
    assert caught.value.details["result"]["stderr"] == "a\nno such file\n"


def test_more_output_than_is_kept_stops_the_command(serve, sandbox, monkeypatch):
    monkeypatch.setattr(commands, "MAX_OUTPUT", 10)
    serve(ManagerThatStreams(event(event="stdout", data="x" * 11), RESULT))
    with pytest.raises(SandboxError) as caught:
        sandbox.exec("yes")
    assert caught.value.code == "TOO_LARGE"


def test_a_line_without_end_is_refused(serve, sandbox, monkeypatch):
    monkeypatch.setattr(ndjson, "MAX_LINE", 1000)
    serve(ManagerThatStreams(b"x" * 2000))
    with pytest.raises(SandboxError, match="more than 1000 bytes"):
        sandbox.exec("x")


async def test_a_cancelled_command_closes_its_connection(serve):
    gone = asyncio.Event()
    here = asyncio.get_running_loop()

    class ManagerThatSeesTheCallerGo(ScriptedManager):
        async def exec(self, body):
            yield event(event="stdout", data="x")
            try:
                while True:
                    await asyncio.sleep(0.01)
                    yield event(event="stdout", data="x")
            except (asyncio.CancelledError, ConnectionError):
                here.call_soon_threadsafe(gone.set)
                raise

        async def _exec(self, request):
            try:
                return await super()._exec(request)
            except ConnectionError:
                here.call_soon_threadsafe(gone.set)
                raise

    serve(ManagerThatSeesTheCallerGo())
    async with get_async_sandbox("one") as handle:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await handle.exec("sleep 100")
        async with asyncio.timeout(5):
            await gone.wait()


async def test_a_command_whose_stdin_is_given_sends_it_as_base64(serve):
    manager = serve(ScriptedManager())
    async with get_async_sandbox("one") as handle:
        await handle.exec("cat", stdin="é", cwd="sub", env={"A": "1"}, timeout=2)
    body = next(body for method, path, body in manager.requests if path.endswith("/exec"))
    assert body == {"command": "cat", "timeout": 2.0, "cwd": "sub", "env": {"A": "1"}, "stdin": "w6k="}
