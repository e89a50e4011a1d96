"""A kernel channel: routing, back-pressure, listeners, and what happens when it breaks."""

import asyncio
import gc
import os

import pytest

from jupyter_sandbox import KernelDied, SandboxError, get_async_sandbox
from jupyter_sandbox.client import execute
from jupyter_sandbox.client.wire import encode, new_header

from .servers import ScriptedManager, answer, unparented


@pytest.fixture
async def handle():
    async with get_async_sandbox("one") as sandbox:
        yield sandbox


async def all_of(request):
    return [message async for message in request]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_request_gets_its_messages_in_order_up_to_reply_and_idle(serve, handle):
    serve(ScriptedManager())
    channel = await handle.channel()
    messages = await all_of(channel.execute("x"))
    assert [message.msg_type for message in messages] == ["status", "stream", "execute_reply", "status"]
    assert messages[1].content == {"name": "stdout", "text": "x"}


class ManagerThatIdlesFirst(ScriptedManager):
    async def run(self, socket, request):
        await socket.send_bytes(answer(request, "iopub", "status", {"execution_state": "idle"}))
        await socket.send_bytes(answer(request, "iopub", "stream", {"name": "stdout", "text": "late"}))
        await socket.send_bytes(answer(request, "shell", "execute_reply", {"status": "ok"}))


async def test_a_request_ends_only_when_reply_and_idle_have_both_come(serve, handle):
    serve(ManagerThatIdlesFirst())
    channel = await handle.channel()
    assert [message.msg_type for message in await all_of(channel.execute("x"))] == ["status", "stream", "execute_reply"]


class ManagerThatMixesRequests(ScriptedManager):
    """Answers two requests at once, message by message."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    async def run(self, socket, request):
        self.waiting.append(request)
        if len(self.waiting) < 2:
            return
        for content in ("a", "b"):
            for one in self.waiting:
                text = one.content["code"] + content
                await socket.send_bytes(answer(one, "iopub", "stream", {"name": "stdout", "text": text}))
        for one in self.waiting:
            await socket.send_bytes(answer(one, "shell", "execute_reply", {"status": "ok"}))
            await socket.send_bytes(answer(one, "iopub", "status", {"execution_state": "idle"}))


async def test_messages_of_concurrent_requests_go_to_the_right_one(serve, handle):
    serve(ManagerThatMixesRequests())
    channel = await handle.channel()
    one, two = channel.execute("1"), channel.execute("2")
    results = await asyncio.gather(all_of(one), all_of(two))
    texts = [[m.content["text"] for m in messages if m.msg_type == "stream"] for messages in results]
    assert texts == [["1a", "1b"], ["2a", "2b"]]


class ManagerWithComms(ScriptedManager):
    async def run(self, socket, request):
        await socket.send_bytes(unparented("iopub", "stream", {"name": "stdout", "text": "from a thread"}))
        await socket.send_bytes(answer(request, "iopub", "comm_open", {"comm_id": "c"}))
        await super().run(socket, request)
        await socket.send_bytes(answer(request, "iopub", "stream", {"name": "stdout", "text": "after the end"}))


async def test_what_belongs_to_no_request_and_every_comm_goes_to_listeners(serve, handle):
    serve(ManagerWithComms())
    channel = await handle.channel()
    heard, awaited = [], []
    stop = channel.listen(lambda message: heard.append(message))

    async def later(message):
        await asyncio.sleep(0)
        awaited.append(message)

    channel.listen(later)
    messages = await all_of(channel.execute("x"))
    assert "comm_open" in [message.msg_type for message in messages]
    await until(lambda: len(awaited) == 3)
    assert [message.content.get("text") for message in heard] == ["from a thread", None, "after the end"]
    assert heard == awaited
    stop()
    await all_of(channel.execute("y"))
    await until(lambda: len(awaited) == 6)
    assert len(heard) == 3


class ManagerThatFloods(ScriptedManager):
    async def cell(self, code):
        for _ in range(200):
            yield "iopub", "stream", {"name": "stdout", "text": "x" * 100_000}


async def test_a_slow_reader_slows_the_sandbox_down_and_nothing_is_lost(serve, handle, monkeypatch):
    monkeypatch.setattr(execute, "QUEUE_BYTES", 500_000)
    manager = serve(ManagerThatFloods())
    channel = await handle.channel()
    request = channel.execute("x")
    await until(lambda: request.full)
    stalled = -1
    while stalled != manager.sent:  # What lies in the sockets' buffers is bounded as well.
        stalled = manager.sent
        await asyncio.sleep(0.2)
    assert stalled < 100
    assert request._bytes < 700_000
    assert sum(message.size for message in await all_of(request)) > 20_000_000


async def test_a_reader_that_lets_go_of_a_full_request_does_not_hold_the_channel_up(serve, handle, monkeypatch):
    monkeypatch.setattr(execute, "QUEUE_MESSAGES", 2)
    serve(ManagerThatFloods())
    channel = await handle.channel()
    requests = [channel.execute("x")]
    await until(lambda: requests[0].full)
    requests.clear()
    gc.collect()
    async with asyncio.timeout(10):
        await channel.complete("a", 1)


async def test_a_closed_request_does_not_hold_the_channel_up(serve, handle, monkeypatch):
    monkeypatch.setattr(execute, "QUEUE_MESSAGES", 2)
    serve(ManagerThatFloods())
    channel = await handle.channel()
    request = channel.execute("x")
    await until(lambda: request.full)
    request.close()
    assert await all_of(request) == []
    async with asyncio.timeout(10):
        await channel.complete("a", 1)


class ManagerThatAsks(ScriptedManager):
    def __init__(self):
        super().__init__()
        self.got = []

    async def received(self, socket, message):
        self.got.append(message)
        if message.msg_type == "execute_request":
            self.request = message
            await socket.send_bytes(answer(message, "stdin", "input_request", {"prompt": "?", "password": False}))
        elif message.msg_type == "input_reply":
            text = {"name": "stdout", "text": message.content["value"]}
            await socket.send_bytes(answer(self.request, "iopub", "stream", text))
            await socket.send_bytes(answer(self.request, "shell", "execute_reply", {"status": "ok"}))
            await socket.send_bytes(answer(self.request, "iopub", "status", {"execution_state": "idle"}))


async def test_input_is_asked_for_and_answered(serve, handle):
    manager = serve(ManagerThatAsks())
    channel = await handle.channel()
    request, texts = channel.execute("input()", allow_stdin=True), []
    async for message in request:
        if message.msg_type == "input_request":
            await channel.input_reply("42", message)
        if message.msg_type == "stream":
            texts.append(message.content["text"])
    assert texts == ["42"]
    assert manager.got[0].content["allow_stdin"] is True
    assert manager.got[1].parent_header["msg_type"] == "input_request"


async def test_any_frame_can_be_sent_with_buffers(serve, handle):
    manager = serve(ManagerThatAsks())
    channel = await handle.channel()
    sent = await channel.send("shell", "comm_msg", {"comm_id": "c"}, metadata={"a": 1}, buffers=[b"12"])
    await until(lambda: manager.got)
    (message,) = manager.got
    assert (message.msg_id, message.metadata, [bytes(b) for b in message.buffers]) == (sent, {"a": 1}, [b"12"])


async def test_the_channel_is_shared_until_it_closes_then_opened_anew(serve, handle):
    serve(ScriptedManager())
    one, two = await asyncio.gather(handle.channel(), handle.channel())
    assert one is two
    await one.close()
    assert one.closed
    three = await handle.channel()
    assert three is not one
    with pytest.raises(SandboxError, match="was closed"):
        await all_of(one.execute("x"))


class ManagerThatSendsGarbage(ScriptedManager):
    def __init__(self, frame):
        super().__init__()
        self.frame = frame

    async def run(self, socket, request):
        send = socket.send_str if isinstance(self.frame, str) else socket.send_bytes
        await send(self.frame)


@pytest.mark.parametrize(
    "frame",
    ["text", b"", os.urandom(200), encode("iopub", {"msg_id": 1, "msg_type": "x"}, {})],
    ids=["text", "empty", "random", "types"],
)
async def test_garbage_closes_the_channel_and_is_named(serve, handle, frame):
    serve(ManagerThatSendsGarbage(frame))
    channel = await handle.channel()
    with pytest.raises(SandboxError) as caught:
        await all_of(channel.execute("x"))
    assert caught.value.code == "OUTPUT_INVALID"
    assert channel.closed


class ManagerWhoseKernelDies(ScriptedManager):
    def __init__(self, oom_kills=0):
        super().__init__()
        self.kills = oom_kills

    async def run(self, socket, request):
        self.usage = {"oom_kills": self.kills}
        dead = {"execution_state": "dead", "reason": "it was killed by SIGKILL", "signal": 9, "exit_code": None}
        await socket.send_bytes(encode("iopub", new_header("status", "k"), dead))


async def test_a_dead_kernel_ends_every_request_and_says_why(serve, handle):
    serve(ManagerWhoseKernelDies())
    channel = await handle.channel()
    with pytest.raises(KernelDied, match="'default' died: it was killed by SIGKILL") as caught:
        await all_of(channel.execute("x"))
    assert caught.value.details["signal"] == 9
    assert channel.closed


async def test_a_kernel_that_ran_out_of_memory_says_so(serve, handle):
    serve(ManagerWhoseKernelDies(oom_kills=1))
    with pytest.raises(KernelDied, match="ran out of memory") as caught:
        await all_of((await handle.channel()).execute("x"))
    assert caught.value.details["reason"] == "out_of_memory"


class ManagerThatCloses(ScriptedManager):
    def __init__(self, code):
        super().__init__()
        self.code = code

    async def run(self, socket, request):
        self.previous_end = "its memory was needed"
        if self.code is None:
            await self.vanish()
        else:
            await socket.close(code=self.code)


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [
        (4410, "KERNEL_DIED", "its memory was needed"),
        (4404, "SANDBOX_DESTROYED", "'one' was destroyed"),
        (1011, "MANAGER_UNAVAILABLE", "connection to the sandbox was lost"),
        (None, "MANAGER_UNAVAILABLE", "connection to the sandbox was lost"),
    ],
)
async def test_a_channel_that_is_closed_from_there_says_why(serve, handle, code, expected, said):
    serve(ManagerThatCloses(code))
    channel = await handle.channel()
    with pytest.raises(SandboxError, match=said) as caught:
        await all_of(channel.execute("x"))
    assert caught.value.code == expected
    with pytest.raises(SandboxError, match=said):
        await channel.send("shell", "comm_msg", {})


async def test_a_pending_completion_ends_with_the_channel(serve, handle):
    class ManagerThatIgnoresCompletions(ScriptedManager):
        async def received(self, socket, message):
            await socket.close(code=4410)

    serve(ManagerThatIgnoresCompletions())
    with pytest.raises(KernelDied):
        await (await handle.channel()).complete("a", 1)


async def test_after_a_stop_the_next_channel_makes_the_sandbox_run_first(serve, handle):
    manager = serve(ManagerThatCloses(4410))
    channel = await handle.channel()
    with pytest.raises(KernelDied):
        await all_of(channel.execute("x"))
    await handle.channel()
    assert manager.asked("PUT", "/one") == 2
    assert handle.previous_end == "its memory was needed"


class ManagerWithAHostileKernelId(ScriptedManager):
    async def _kernel(self, request):
        from aiohttp import web

        return web.json_response({"id": "../../../two", "context": "default", "language": "python"})


async def test_a_kernel_id_that_would_change_the_path_is_refused(serve, handle):
    serve(ManagerWithAHostileKernelId())
    with pytest.raises(SandboxError, match="without a usable id"):
        await handle.channel()


async def test_restart_ends_what_runs(serve, handle):
    class ManagerThatRestarts(ScriptedManager):
        async def run(self, socket, request):
            await socket.send_bytes(answer(request, "iopub", "status", {"execution_state": "busy"}))

        async def _restart(self, request):
            return await self._kernel(request)

        def app(self):
            app = super().app()
            app.router.add_post("/sandboxes/-/{id}/agent/api/kernels/{kernel}/restart", self._restart)
            return app

    serve(ManagerThatRestarts())
    channel = await handle.channel()
    request = channel.execute("x")
    assert (await anext(request)).content == {"execution_state": "busy"}
    await channel.restart()
    with pytest.raises(KernelDied, match="was restarted"):
        await anext(request)
    assert not channel.closed
