"""Runs one cell in a sandbox: a task on the client's loop fetches, this thread shows, asks and takes ■."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from IPython.core.interactiveshell import InteractiveShell

from ..client.loop import background_loop, run
from ..client.wire import Message
from ..errors import SandboxError, error
from . import stdin
from .interrupting import Action, Escalation, sigint_calls
from .mailbox import Mailbox
from .relay import Relay

if TYPE_CHECKING:
    from ..client.channel import KernelChannel
    from ..client.execute import ExecuteRequest


class _Pressed:
    """■ was pressed."""


@dataclass(frozen=True)
class _Ended:
    """The request ended; ``why`` is None when it ended in its own time."""

    why: BaseException | None


class Cell:
    """One cell while it runs.

    Parameters
    ----------
    sandbox_id:
        For messages.
    channel:
        To the kernel of the cell's context.
    relay:
        Shows what comes.
    timeout:
        Seconds after which the cell is interrupted; None: never.
    """

    def __init__(
        self, sandbox_id: str, channel: KernelChannel, relay: Relay, shell: InteractiveShell, timeout: float | None
    ) -> None:
        self._id = sandbox_id
        self._channel = channel
        self._relay = relay
        self._shell = shell
        self._timeout = timeout
        self._loop = background_loop()
        self._mail = Mailbox(self._loop)
        self._escalation = Escalation(timeout)

    def run(self, code: str, on_request: Callable[[str], None]) -> None:
        """Run ``code`` and return when it has succeeded.

        Parameters
        ----------
        on_request:
            Called on the client's loop with the id of the request, before its first message.

        Raises
        ------
        RemoteError
            The code raised.
        SandboxError
            It could not be run to its end: ``EXECUTION_TIMEOUT``, ``KERNEL_DIED``, ``CONTEXT_STILL_BUSY`` …
        """
        work = self._fetch(code, stdin.can_ask(self._shell), on_request)
        with sigint_calls(lambda: self._mail.post(_Pressed())):
            fetching = asyncio.run_coroutine_threadsafe(work, self._loop)
            try:
                self._show_until_end()
            finally:
                fetching.cancel()
        if self._escalation.timed_out:
            raise self._timed_out("It was interrupted.")
        if (failed := self._relay.outcome()) is not None:
            raise failed from None

    async def _fetch(self, code: str, allow_stdin: bool, on_request: Callable[[str], None]) -> None:
        """On the client's loop: send the code, and hand every message over to the thread that shows."""
        why: BaseException | None = None
        request: ExecuteRequest | None = None
        try:
            request = self._channel.execute(code, allow_stdin=allow_stdin)
            on_request(request.msg_id)
            async for message in request:
                await self._mail.put(message, message.size)
        except BaseException as exc:  # Hides nothing: the thread that waits for the end raises it.
            why = exc
        finally:
            if request is not None:
                request.close()
            self._mail.post(_Ended(why))

    def _show_until_end(self) -> None:
        while True:
            try:
                item = self._mail.get(self._escalation.wait())
            except queue.Empty:
                item = None
            except KeyboardInterrupt:  # where SIGINT could not be taken over
                item = _Pressed()
            if isinstance(item, _Ended):
                return self._check_end(item)
            if isinstance(item, Message):
                self._take(item)
            elif isinstance(item, _Pressed):
                self._act(self._escalation.press())
            if (action := self._escalation.due()) is not None:
                self._act(action)

    def _take(self, message: Message) -> None:
        if message.channel == "stdin" and message.msg_type == "input_request":
            self._answer(message)
        else:
            self._relay.show(message)

    def _answer(self, request: Message) -> None:
        try:
            answer = stdin.ask(self._id, request)
        except (KeyboardInterrupt, EOFError, NotImplementedError):  # the last: StdinNotImplementedError of ipykernel
            self._act(self._escalation.press())
        else:
            run(self._channel.input_reply(answer, request))

    def _check_end(self, ended: _Ended) -> None:
        if ended.why is not None:
            raise ended.why

    def _act(self, action: Action) -> None:
        if action == "restart":
            self._restart()
        elif action == "give_up":
            self._give_up()
        else:
            interrupting = self._channel.interrupt(force=action == "force")
            # Not waited for: where it fails the sandbox is gone, and the request ends with the error to show.
            asyncio.run_coroutine_threadsafe(interrupting, self._loop)

    def _restart(self) -> None:
        run(self._channel.restart())
        raise error(
            "KERNEL_DIED",
            f"Interrupted twice: the context {self._channel.context!r} of sandbox {self._id!r} was restarted, and its "
            "variables are gone.",
            remedy="Its files are kept.",
        )

    def _give_up(self) -> None:
        if self._escalation.timed_out:
            raise self._timed_out("It does not react to interrupts, and is still running.")
        raise error(
            "CONTEXT_STILL_BUSY",
            f"The code does not react to interrupts: context {self._channel.context!r} of sandbox {self._id!r} is "
            "still busy, and later cells wait for it.",
            remedy="To end it, run a cell there and interrupt it twice: that restarts the context.",
        )

    def _timed_out(self, what: str) -> SandboxError:
        return error(
            "EXECUTION_TIMEOUT", f"The cell ran longer than --timeout {self._timeout:g} seconds. {what}", remedy=""
        )
