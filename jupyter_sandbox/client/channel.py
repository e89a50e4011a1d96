"""A kernel channel: one WebSocket to one kernel, shared by everything that runs in its context."""

from __future__ import annotations

import asyncio
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SandboxError, error
from .execute import ExecuteRequest
from .remote import Remote
from .wire import Message, decode, encode, new_header

if TYPE_CHECKING:
    import aiohttp

Listener = Callable[[Message], Awaitable[None] | None]
Diagnosis = Callable[[Mapping[str, Any]], Awaitable[SandboxError]]
"""Turns the content of a ``dead`` status, or ``{"close": code}``, into an error that says why."""


class KernelChannel:
    """One WebSocket to one kernel. Made by :meth:`AsyncSandbox.channel`; to be used on the loop that opened it.

    Attributes
    ----------
    kernel_id, context:
        Which kernel, and the name of its context.
    runtime:
        Which start of the sandbox the kernel belongs to.
    created:
        Whether opening the channel started the kernel.
    notice:
        Why the context's former kernel is gone; said once, by the first channel to the new one.
    """

    def __init__(
        self,
        remote: Remote,
        model: Mapping[str, Any],
        socket: aiohttp.ClientWebSocketResponse,
        diagnose: Diagnosis,
    ) -> None:
        self.kernel_id: str = model["id"]
        self.context: str = model["context"]
        self.created: bool = model["created"]
        self.notice: str | None = model["notice"]
        self.runtime = remote.runtime
        self._path = f"api/kernels/{self.kernel_id}"
        self._remote = remote
        self._socket = socket
        self._diagnose = diagnose
        self._session = uuid.uuid4().hex
        self._requests: weakref.WeakValueDictionary[str, ExecuteRequest] = weakref.WeakValueDictionary()
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._listeners: list[Listener] = []
        self._freed = asyncio.Event()
        self._closed: SandboxError | None = None
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump = self._loop.create_task(self._read())

    @property
    def closed(self) -> bool:
        """Whether the channel is of no more use; a new one has to be opened."""
        return self._closed is not None

    # --- asking ------------------------------------------------------------------------------------

    def execute(
        self,
        code: str,
        *,
        silent: bool = False,
        store_history: bool = True,
        allow_stdin: bool = False,
        user_expressions: Mapping[str, str] | None = None,
    ) -> ExecuteRequest:
        """Send code to the kernel; iterate over what is returned to get its messages.

        Code that waits in the kernel's queue is not discarded when code before it fails.
        """
        header = new_header("execute_request", self._session)
        request = ExecuteRequest(header, _waker(self._freed, self._loop))
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": dict(user_expressions or {}),
            "allow_stdin": allow_stdin,
            "stop_on_error": False,
        }
        frame = encode("shell", header, content)
        self._requests[request.msg_id] = request
        if self._closed is not None:
            request.fail(self._of_no_use(self._closed))
        else:
            self._spawn(self._send_request(frame, request))
        return request

    async def send(
        self,
        channel: str,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Iterable[bytes | bytearray | memoryview] = (),
        parent: Mapping[str, Any] | None = None,
    ) -> str:
        """Send any message, for example a ``comm_msg``, and return its ``msg_id``."""
        header = new_header(msg_type, self._session)
        await self._send(encode(channel, header, content, parent=parent, metadata=metadata, buffers=buffers))
        return str(header["msg_id"])

    async def input_reply(self, value: str, request: Message) -> None:
        """Answer an ``input_request``."""
        await self.send("stdin", "input_reply", {"value": value}, parent=request.header)

    async def complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Ask the kernel for completions; the content of its ``complete_reply``."""
        return await self._ask("complete_request", {"code": code, "cursor_pos": cursor_pos})

    async def interrupt(self, *, force: bool = False) -> None:
        """Interrupt what the kernel runs; ``force`` sends SIGINT to its whole process group."""
        await self._remote.agent_json("POST", self._path + "/interrupt", json={"force": force}, repeatable=True)

    async def restart(self) -> None:
        """Restart the kernel: its variables are gone, what it ran ends with ``KernelDied``, the channel stays."""
        running = list(self._requests.values())
        await self._remote.agent_json("POST", self._path + "/restart")
        for request in running:
            request.fail(self._restarted())

    def listen(self, callback: Listener) -> Callable[[], None]:
        """Have ``callback`` called with every message of no running request of ours, and every ``comm_*`` message.

        Returns
        -------
        Callable[[], None]
            Stops listening.
        """
        self._listeners.append(callback)

        def stop() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return stop

    async def close(self) -> None:
        """Close the channel; the kernel goes on. Requests that still run end with an error here."""
        self._end(error("STALE_HANDLE", "The channel was closed."))
        self._pump.cancel()
        await self._socket.close()
        await asyncio.gather(self._pump, return_exceptions=True)

    async def _ask(self, msg_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
        header = new_header(msg_type, self._session)
        reply: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._replies[header["msg_id"]] = reply
        try:
            await self._send(encode("shell", header, content))
            return await reply
        finally:
            del self._replies[header["msg_id"]]

    async def _send_request(self, frame: bytes, request: ExecuteRequest) -> None:
        try:
            if self._closed is not None:  # Since the request was made: it never ran, whatever ended the channel.
                raise _broken(sent=False)
            await self._send(frame)
        except SandboxError as problem:
            request.was_not_sent(problem)

    async def _send(self, frame: bytes) -> None:
        if self._closed is not None:
            raise self._of_no_use(self._closed)
        try:
            await self._socket.send_bytes(frame)
        except ConnectionError as problem:
            self._end(_broken())
            # Refused because the socket is closed already, as opposed to lost while the frame was on its way.
            raise _broken(sent="closing transport" not in str(problem)) from problem

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- reading -----------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read frames until the channel closes, and say why it did."""
        why: SandboxError = _broken()
        try:
            why = await self._read_until_closed()
        except SandboxError as problem:
            why = problem
        finally:
            self._remote.forget()  # Whatever ended it: the next operation asks the manager to have it running.
            self._end(why)
            await self._socket.close()

    async def _read_until_closed(self) -> SandboxError:
        from aiohttp import WSMsgType

        while True:
            frame = await self._socket.receive()
            if frame.type is not WSMsgType.BINARY:
                return await self._why_closed(frame)
            message = decode(frame.data)
            if (death := _death(message)) is not None:
                return await self._diagnose(death)
            await self._route(message)

    async def _why_closed(self, frame: aiohttp.WSMessage) -> SandboxError:
        from aiohttp import WSMsgType

        if frame.type in (WSMsgType.TEXT, WSMsgType.ERROR):
            return error("OUTPUT_INVALID", "The sandbox sent a frame that is no Jupyter message.")
        code = self._socket.close_code
        return await self._diagnose({"close": code}) if code in (4404, 4410) else _broken()

    async def _route(self, message: Message) -> None:
        comm = message.msg_type.startswith("comm_")
        parent = message.parent_id
        if parent in self._replies:
            self._answer(message)
            return
        taken = await self._hand_over(message)
        if comm or not taken:
            await self._tell_listeners(message)
        if _is_restart(message):
            self._fail_requests(self._restarted())

    def _restarted(self) -> SandboxError:
        return error("KERNEL_DIED", f"The kernel of context {self.context!r} was restarted.", reason="restarted")

    async def _hand_over(self, message: Message) -> bool:
        """Give a message to the request that it belongs to, as soon as that has room."""
        key = message.parent_id or ""
        while (request := self._requests.get(key)) is not None and not request.ended:
            if not request.full:
                request.put(message)
                return True
            del request  # A reader that lets go of its request must not be kept waiting for by us.
            self._freed.clear()
            await self._freed.wait()
        return False

    def _answer(self, message: Message) -> None:
        reply = self._replies[message.parent_id or ""]
        if message.channel == "shell" and not reply.done():
            reply.set_result(message.content)

    async def _tell_listeners(self, message: Message) -> None:
        for listener in list(self._listeners):
            if (waiting := listener(message)) is not None:
                await waiting

    def _end(self, why: SandboxError) -> None:
        if self._closed is not None:
            return
        self._closed = why
        self._fail_requests(why)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(why)

    def _of_no_use(self, why: SandboxError) -> SandboxError:
        """What using the channel raises after its end: the kernel's own end is told only to what ran in it then."""
        if why.code not in ("KERNEL_DIED", "SANDBOX_DESTROYED"):
            return why
        text = f"The channel belongs to a kernel of context {self.context!r} that is gone. {why.message}"
        return error("STALE_HANDLE", text, remedy="Open a new channel to the context.", sent=False)

    def _fail_requests(self, why: SandboxError) -> None:
        for request in list(self._requests.values()):
            request.fail(why)


def _waker(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> Callable[[str], None]:
    """Wake the reader when a request has room again, or is gone; the garbage collector may call from any thread."""

    def wake(_msg_id: str) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(event.set)

    return wake


def _death(message: Message) -> Mapping[str, Any] | None:
    state = message.content.get("execution_state") if _is_status(message) else None
    return message.content if state == "dead" else None


def _is_restart(message: Message) -> bool:
    return _is_status(message) and message.content.get("execution_state") in ("restarting", "autorestarting")


def _is_status(message: Message) -> bool:
    return message.channel == "iopub" and message.msg_type == "status"


def _broken(*, sent: bool = True) -> SandboxError:
    """The error for a lost connection; ``details["sent"]`` is False where it is safe to do the same again."""
    return error(
        "MANAGER_UNAVAILABLE",
        "The connection to the sandbox was lost.",
        remedy="What ran may still be running; the next cell connects again." if sent else "Try again.",
        sent=sent,
    )
