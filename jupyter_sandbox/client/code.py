"""Runs code in a context and gathers what it gives (:class:`Execution`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import SandboxError, error
from ..models import Execution, ExecutionError, Result
from . import arguments
from .channel import KernelChannel
from .execute import ExecuteRequest
from .remote import called
from .wire import Message

INTERRUPT_GRACE = 5.0
"""Seconds that code may take to end after an interrupt, and again after a forced one."""

MAX_OUTPUT = 256 * 1024**2
"""Bytes of messages that an :class:`Execution` keeps; callbacks get all."""

Callback = Callable[[Any], Awaitable[None] | None]


@dataclass
class Callbacks:
    """What the user wants to be told while code runs; each may be a function or a coroutine function."""

    on_stdout: Callback | None = None
    on_stderr: Callback | None = None
    on_result: Callback | None = None
    on_error: Callback | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            arguments.callback(name, value)


async def run(channel: KernelChannel, code: str, seconds: float | None, callbacks: Callbacks) -> Execution:
    """Run ``code`` on ``channel``; see :meth:`AsyncSandbox.run_code`.

    When it is cancelled, or takes too long, the code is interrupted; after :data:`INTERRUPT_GRACE` with force. The
    kernel is never killed. Code that still waits behind other code is interrupted when its turn comes.
    """
    request = channel.execute(code)
    gathered = Gathered(callbacks)
    task = asyncio.create_task(gathered.take_all(request))
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _stop(channel, request, task)
        raise
    if not task.done():
        assert seconds is not None
        ended = await _stop(channel, request, task)
        raise _timed_out(seconds, ended, gathered.execution)
    await _interrupt_after_a_failed_callback(channel, request, task)
    return task.result()


async def _stop(channel: KernelChannel, request: ExecuteRequest, task: asyncio.Task[Execution]) -> bool:
    """Interrupt, then with force; whether the code ended."""
    if not request.started.is_set():
        _interrupt_when_it_starts(channel, request)
    for force in (False, True) if request.started.is_set() else ():
        with contextlib.suppress(SandboxError):  # The channel is broken: there is nothing to wait for, either.
            await channel.interrupt(force=force)
        done, _ = await asyncio.wait({task}, timeout=INTERRUPT_GRACE)
        if done:
            return _ended_well(task)
    task.cancel()
    await asyncio.wait({task})
    return False


def _ended_well(task: asyncio.Task[Execution]) -> bool:
    if (problem := task.exception()) is not None:
        raise problem
    return True


_withdrawn: set[asyncio.Task[None]] = set()


def _interrupt_when_it_starts(channel: KernelChannel, request: ExecuteRequest) -> None:
    """A request cannot be taken back from a kernel's queue, and what runs now may be somebody else's."""

    async def wait_and_interrupt() -> None:
        await request.started.wait()
        with contextlib.suppress(SandboxError):  # Nobody is left who could be told.
            if not channel.closed:
                await channel.interrupt()
            async for _ in request:
                pass

    task = asyncio.create_task(wait_and_interrupt())
    _withdrawn.add(task)
    task.add_done_callback(_withdrawn.discard)


async def _interrupt_after_a_failed_callback(
    channel: KernelChannel, request: ExecuteRequest, task: asyncio.Task[Execution]
) -> None:
    if task.exception() is not None and not request.ended:
        with contextlib.suppress(SandboxError):  # The callback's error is the one to tell.
            await channel.interrupt()
        request.close()


def _timed_out(timeout: float, ended: bool, execution: Execution) -> SandboxError:
    tail = {name: "".join(getattr(execution.logs, name))[-2000:] for name in ("stdout", "stderr")}
    return error(
        "EXECUTION_TIMEOUT",
        f"The code ran longer than {timeout:g} seconds and was interrupted."
        if ended
        else f"The code did not end within {timeout:g} seconds, nor after an interrupt; the context is still busy.",
        timeout=timeout,
        still_busy=not ended,
        **tail,
    )


@dataclass
class Gathered:
    """An execution that grows message by message."""

    callbacks: Callbacks
    execution: Execution = field(default_factory=Execution)
    _displays: dict[str, list[int]] = field(default_factory=dict)
    _clear: bool = False
    _kept: int = 0

    async def take_all(self, request: ExecuteRequest) -> Execution:
        """Read ``request`` to its end."""
        async for message in request:
            await self._take(message)
        reply = request.reply or {}
        if self.execution.error is None and reply.get("status") in ("error", "aborted"):
            await self._error(reply)
        if isinstance(count := reply.get("execution_count"), int):
            self.execution.execution_count = count
        return self.execution

    async def _take(self, message: Message) -> None:
        if message.channel != "iopub":
            return
        content = message.content
        match message.msg_type:
            case "stream":
                await self._stream(content, self._room_for(message))
            case "execute_result" | "display_data":
                await self._show(content, self._room_for(message))
            case "update_display_data":
                await self._update(content)
            case "clear_output":
                self._clear_results(later=content.get("wait") is True)
            case "error":
                await self._error(content)

    def _room_for(self, message: Message) -> bool:
        """Whether a message is kept; the first that is not leaves a line that says so."""
        fits = self._kept <= MAX_OUTPUT
        self._kept += message.size
        if fits and self._kept > MAX_OUTPUT:
            self.execution.logs.stderr.append(f"[The output is cut here, at {MAX_OUTPUT // 1024**2} MiB.]\n")
            return False
        return fits

    async def _stream(self, content: dict[str, Any], keep: bool) -> None:
        text = content.get("text")
        if not isinstance(text, str):
            raise error("OUTPUT_INVALID", "The sandbox sent a stream that is no text.")
        is_stderr = content.get("name") == "stderr"
        if keep:
            (self.execution.logs.stderr if is_stderr else self.execution.logs.stdout).append(text)
        await _tell(self.callbacks.on_stderr if is_stderr else self.callbacks.on_stdout, text)

    async def _show(self, content: dict[str, Any], keep: bool) -> None:
        result = _result(content)
        if self._clear:
            self._clear_results(later=False)
        if keep:
            if (display := _display_id(content)) is not None:
                self._displays.setdefault(display, []).append(len(self.execution.results))
            self.execution.results.append(result)
        await _tell(self.callbacks.on_result, result)

    async def _update(self, content: dict[str, Any]) -> None:
        result = _result(content)
        for index in self._displays.get(_display_id(content) or "", []):
            self.execution.results[index] = result
        await _tell(self.callbacks.on_result, result)

    def _clear_results(self, *, later: bool) -> None:
        self._clear = later
        if not later:
            self.execution.results.clear()
            self._displays.clear()

    async def _error(self, content: dict[str, Any]) -> None:
        lines = content.get("traceback")
        aborted = content.get("status") == "aborted"
        self.execution.error = ExecutionError(
            name=str(content.get("ename", "Aborted" if aborted else "Error")),
            value=str(content.get("evalue", "The kernel did not run the code." if aborted else "")),
            traceback=tuple(map(str, lines)) if isinstance(lines, list) else (),
        )
        await _tell(self.callbacks.on_error, self.execution.error)


def _result(content: dict[str, Any]) -> Result:
    data, metadata = content.get("data"), content.get("metadata", {})
    if not isinstance(data, dict) or not isinstance(metadata, dict):
        raise error("OUTPUT_INVALID", "The sandbox sent a result that is no MIME bundle.")
    return Result(data, metadata)


def _display_id(content: dict[str, Any]) -> str | None:
    transient = content.get("transient")
    display = transient.get("display_id") if isinstance(transient, dict) else None
    return display if isinstance(display, str) else None


async def _tell(callback: Callback | None, value: Any) -> None:
    if callback is not None:
        await called(callback(value))
