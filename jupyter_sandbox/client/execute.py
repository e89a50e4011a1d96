"""One running execute request on a kernel channel: its messages, in order, through a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from .wire import Message

QUEUE_BYTES = 8 * 1024**2
QUEUE_MESSAGES = 1000
"""What waits for a slow reader of one request; beyond it the channel, and so the sandbox, waits."""


class ExecuteRequest:
    """An async iterator of the :class:`Message` that belong to one request, in order of arrival.

    It ends when the shell reply and the kernel's ``idle`` have both come. It raises ``KernelDied`` when the kernel
    dies, and another ``SandboxError`` when the channel closes. Who stops reading early calls :meth:`close` (or lets
    go of the object): later messages then go to the channel's listeners.

    Attributes
    ----------
    msg_id:
        The id of the request.
    started:
        Set when the kernel began to run it; until then it waits behind others.
    reply:
        The content of the shell reply, once it came.
    """

    def __init__(self, header: dict[str, Any], freed: Callable[[str], None]) -> None:
        self.header = header
        self.msg_id: str = header["msg_id"]
        self.started = asyncio.Event()
        self.reply: dict[str, Any] | None = None
        self._freed = freed
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._idle = False
        self._ended = False
        self._error: BaseException | None = None
        self._news = asyncio.Event()

    def __aiter__(self) -> ExecuteRequest:
        return self

    async def __anext__(self) -> Message:
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        message = self._queue.popleft()
        self._bytes -= message.size
        self._freed(self.msg_id)
        return message

    def __del__(self) -> None:
        self._freed(self.msg_id)

    def close(self) -> None:
        """Stop taking messages; the code goes on."""
        self._queue.clear()
        self._bytes = 0
        self._end()

    # --- for the channel ---------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether no message of this request is expected any more."""
        return self._ended

    @property
    def full(self) -> bool:
        """Whether the reader is so far behind that the channel has to wait."""
        return bool(self._queue) and (self._bytes >= QUEUE_BYTES or len(self._queue) >= QUEUE_MESSAGES)

    def put(self, message: Message) -> None:
        """Hand over one message."""
        self._queue.append(message)
        self._bytes += message.size
        if message.channel == "shell":
            self.reply = message.content
        elif message.channel == "iopub" and message.msg_type == "status":
            self._see(message.content.get("execution_state"))
        if self.reply is not None and self._idle:
            self._end()
        self._news.set()

    def fail(self, problem: BaseException) -> None:
        """End with an error, after what is queued was read."""
        if not self._ended:
            self._error = problem
            self._end()

    def was_not_sent(self, problem: BaseException) -> None:
        """End with an error that says so; it stands above the channel's own end."""
        self._error = problem
        self._end()

    def _see(self, state: object) -> None:
        if state == "busy":
            self.started.set()
        elif state == "idle":
            self._idle = True

    def _end(self) -> None:
        self._ended = True
        self.started.set()
        self._news.set()
        self._freed(self.msg_id)
