"""Code: what an execution gathers, callbacks, and the ways in which it is stopped."""

import asyncio
import base64
import os
import signal
import threading

import pytest

from jupyter_sandbox import ExecutionTimeout, SandboxError, get_async_sandbox
from jupyter_sandbox.client import code

from .servers import ScriptedManager, answer


class ManagerWithACell(ScriptedManager):
    """Its kernel answers every cell with these messages."""

    def __init__(self, *messages):
        super().__init__()
        self.messages = messages

    async def cell(self, source):
        for kind, content in self.messages:
            yield "iopub", kind, content


def stream(text, name="stdout"):
    return "stream", {"name": name, "text": text}


def display(text, display_id=None, kind="display_data"):
    return kind, {"data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": display_id}}


def test_logs_are_appended_and_results_kept_in_order(serve, sandbox):
    picture = base64.b64encode(b"\x89PNG").decode()
    serve(
        ManagerWithACell(
            stream("a"),
            stream("b"),
            stream("!", "stderr"),
            ("display_data", {"data": {"image/png": picture}, "metadata": {"w": 1}}),
            ("execute_result", {"data": {"text/plain": "2", "text/html": "<b>2</b>"}, "metadata": {}}),
        )
    )
    execution = sandbox.run_code("x")
    assert execution.logs.stdout == ["a", "b"]
    assert execution.logs.stderr == ["!"]
    assert execution.results[0].png == b"\x89PNG"
    assert execution.results[0].metadata == {"w": 1}
    assert (execution.text, execution.results[1].html) == ("2", "<b>2</b>")
    assert execution.execution_count == 1
    assert execution.error is None


def test_an_update_replaces_the_display_of_that_id(serve, sandbox):
    serve(
        ManagerWithACell(display("0 %", "bar"), display("other", "x"), display("100 %", "bar", "update_display_data"))
    )
    assert [result.text for result in sandbox.run_code("x").results] == ["100 %", "other"]


def test_clear_output_clears_results_now_or_before_the_next(serve, sandbox):
    clear = ("clear_output", {"wait": True})
    serve(ManagerWithACell(display("1"), clear, display("2"), clear))
    assert [result.text for result in sandbox.run_code("x").results] == ["2"]


def test_an_exception_is_a_result(serve, sandbox):
    serve(ManagerWithACell(("error", {"ename": "KeyError", "evalue": "'a'", "traceback": ["1", "2"]})))
    problem = sandbox.run_code("x").error
    assert (problem.name, problem.value, problem.traceback) == ("KeyError", "'a'", ("1", "2"))


class ManagerWhoseKernelAborts(ScriptedManager):
    async def run(self, socket, request):
        await socket.send_bytes(answer(request, "shell", "execute_reply", {"status": "aborted"}))
        await socket.send_bytes(answer(request, "iopub", "status", {"execution_state": "idle"}))


def test_code_that_the_kernel_did_not_run_is_no_success(serve, sandbox):
    serve(ManagerWhoseKernelAborts())
    assert sandbox.run_code("x").error.name == "Aborted"


def test_callbacks_get_everything_in_the_calling_thread(serve, sandbox):
    serve(
        ManagerWithACell(
            stream("a"), stream("b", "stderr"), display("1"), ("error", {"ename": "E", "evalue": "", "traceback": []})
        )
    )
    seen = []
    sandbox.run_code(
        "x",
        on_stdout=lambda text: seen.append((text, threading.current_thread())),
        on_stderr=lambda text: seen.append((text, threading.current_thread())),
        on_result=lambda result: seen.append((result.text, threading.current_thread())),
        on_error=lambda problem: seen.append((problem.name, threading.current_thread())),
    )
    assert seen == [(text, threading.current_thread()) for text in ("a", "b", "1", "E")]


async def test_callbacks_of_the_async_face_may_be_coroutines(serve):
    serve(ManagerWithACell(stream("a")))
    seen = []

    async def later(text):
        await asyncio.sleep(0)
        seen.append(text)

    async with get_async_sandbox("one") as handle:
        await handle.run_code("x", on_stdout=later)
    assert seen == ["a"]


@pytest.mark.parametrize(
    "message",
    [
        ("stream", {"name": "stdout", "text": 5}),
        ("display_data", {"data": []}),
        ("execute_result", {"data": {}, "metadata": 3}),
        ("update_display_data", {}),
    ],
)
def test_wrong_types_in_a_message_are_an_error(serve, sandbox, message):
    serve(ManagerWithACell(message))
    with pytest.raises(SandboxError) as caught:
        sandbox.run_code("x")
    assert caught.value.code == "OUTPUT_INVALID"


def test_output_beyond_the_bound_is_cut_with_a_line_and_callbacks_get_all(serve, sandbox, monkeypatch):
    monkeypatch.setattr(code, "MAX_OUTPUT", 5000)
    serve(ManagerWithACell(*[stream("x" * 1000) for _ in range(20)]))
    seen = []
    execution = sandbox.run_code("x", on_stdout=seen.append)
    assert len("".join(execution.logs.stdout)) < 5000
    assert execution.logs.stderr == ["[The output is cut here, at 0 MiB.]\n"]
    assert len(seen) == 20


class ManagerWithALongCell(ScriptedManager):
    """Runs until it was interrupted so often."""

    def __init__(self, interrupts):
        super().__init__()
        self.needed = interrupts
        self.forced = []

    async def _interrupt(self, request):
        self.forced.append((await request.json())["force"])
        if len(self.forced) >= self.needed:
            self.interrupted.set()
        return await super()._interrupt(request) if self.interrupted.is_set() else self.no_content()

    def no_content(self):
        from aiohttp import web

        return web.Response(status=204)

    async def cell(self, source):
        yield "iopub", "stream", {"name": "stdout", "text": "before"}
        await self.interrupted.wait()
        yield "iopub", "error", {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(code, "INTERRUPT_GRACE", 0.3)


@pytest.mark.parametrize(
    ("interrupts", "forced", "still_busy"),
    [(1, [False], False), (2, [False, True], False), (3, [False, True], True)],
)
def test_a_timeout_interrupts_then_forces_and_never_kills(serve, sandbox, interrupts, forced, still_busy):
    manager = serve(ManagerWithALongCell(interrupts))
    with pytest.raises(ExecutionTimeout) as caught:
        sandbox.run_code("x", timeout=0.2)
    assert manager.forced == forced
    assert caught.value.details["still_busy"] is still_busy
    assert caught.value.details["stdout"] == "before"
    assert ("still busy" in str(caught.value)) is still_busy


def test_a_keyboard_interrupt_interrupts_the_code_and_is_raised(serve, sandbox):
    manager = serve(ManagerWithALongCell(1))
    with pytest.raises(KeyboardInterrupt):
        sandbox.run_code("x", on_stdout=lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert manager.forced == [False]


async def test_a_cancelled_run_interrupts_the_code(serve):
    manager = serve(ManagerWithALongCell(1))
    async with get_async_sandbox("one") as handle:
        began = asyncio.Event()
        task = asyncio.create_task(handle.run_code("x", on_stdout=lambda _: began.set()))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert manager.forced == [False]


def test_an_error_of_a_callback_is_raised_and_interrupts_the_code(serve, sandbox):
    manager = serve(ManagerWithALongCell(1))

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sandbox.run_code("x", on_stdout=fail)
    assert manager.forced == [False]


class ManagerWithABusyKernel(ScriptedManager):
    """Runs something of somebody else until the test lets it go on."""

    def __init__(self):
        super().__init__()
        self.interrupts = 0

    async def _interrupt(self, request):
        self.interrupts += 1
        return await super()._interrupt(request)

    async def run(self, socket, request):
        self.waiting = (socket, request)


async def test_code_that_waits_behind_others_does_not_interrupt_them_when_it_times_out(serve):
    manager = serve(ManagerWithABusyKernel())
    async with get_async_sandbox("one") as handle:
        with pytest.raises(ExecutionTimeout) as caught:
            await handle.run_code("x", timeout=0.2)
        assert caught.value.details["still_busy"] is True
        assert manager.interrupts == 0
        # Its turn comes: nobody wants it any more.
        socket, request = manager.waiting
        busy = answer(request, "iopub", "status", {"execution_state": "busy"})
        manager.in_its_thread(socket.send_bytes(busy))
        async with asyncio.timeout(5):
            while not manager.interrupts:
                await asyncio.sleep(0.01)
