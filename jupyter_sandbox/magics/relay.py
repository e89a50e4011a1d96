"""Rebuilds what a sandbox sends as the output of the local cell, and believes none of it.

Known message types and known fields only, each of the right type; sizes bounded; display ids in a name space of the
sandbox; the reply's ``payload`` (which could plant a next cell) never read. Parents and headers are not taken over at
all: :class:`~jupyter_sandbox.magics.screen.Screen` publishes as the local kernel does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..client.wire import Message
from .errors import RemoteError, remote_error
from .safe import SafeOutput, clean_json, clean_text

MIB = 1024 * 1024
STREAM_PIECE = MIB
"""Characters that are shown at once."""

DISPLAY_LIMIT = 64 * MIB
"""Bytes of one display or result; a larger one becomes a line that says so."""


class Output(Protocol):
    """Where output goes: what :class:`~jupyter_sandbox.magics.screen.Screen` offers."""

    def stream(self, name: str, text: str) -> None: ...  # noqa: D102 - see Screen
    def result(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None: ...  # noqa: D102
    def display(  # noqa: D102
        self, data: Mapping[str, Any], metadata: Mapping[str, Any], display_id: str | None, *, update: bool = False
    ) -> None: ...
    def clear(self, *, wait: bool) -> None: ...  # noqa: D102
    def error(self, exc: BaseException) -> None: ...  # noqa: D102
    def flush(self) -> None: ...  # noqa: D102
    def note(self, text: str) -> None: ...  # noqa: D102


class Relay:
    """The output of one request, from the sandbox to the local cell.

    Parameters
    ----------
    sandbox_id:
        For lines of our own and for the name space of display ids.
    output:
        Where to show.
    rules:
        Which MIME types pass, and how.
    limit:
        Bytes of output that one cell may show; what comes after is left out, and a line says so. Clearing the
        output starts the count anew.
    on_comm:
        Takes ``comm_*`` messages.
    """

    def __init__(
        self,
        sandbox_id: str,
        output: Output,
        rules: SafeOutput,
        limit: int,
        on_comm: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self._id = sandbox_id
        self._output = output
        self._rules = rules
        self._limit = limit
        self._shown = 0
        self._cut = False
        self._pending: RemoteError | None = None
        self._last: RemoteError | None = None
        self._handlers: dict[str, Callable[[Message], None]] = {
            "stream": self._stream,
            "display_data": self._display,
            "update_display_data": self._display,
            "execute_result": self._result,
            "clear_output": self._clear,
            "error": self._error,
            "execute_reply": self._reply,
            "comm_open": self._comm,
            "comm_msg": self._comm,
            "comm_close": self._comm,
        }
        self._on_comm = on_comm

    def show(self, message: Message) -> None:
        """Show one message; types that are not known are left out."""
        channel = "shell" if message.msg_type == "execute_reply" else "iopub"
        if message.channel == channel and (handler := self._handlers.get(message.msg_type)) is not None:
            handler(message)

    def outcome(self) -> RemoteError | None:
        """The error that ended the code, which the caller raises; None if it succeeded."""
        return self._pending

    def _stream(self, message: Message) -> None:
        name, text = message.content.get("name"), message.content.get("text")
        if name not in ("stdout", "stderr") or not isinstance(text, str):
            return
        self._show_pending()
        text = clean_text(text)
        for start in range(0, len(text), STREAM_PIECE):
            piece = text[start : start + STREAM_PIECE]
            if self._spend(len(piece)):
                self._output.stream(name, piece)

    def _display(self, message: Message) -> None:
        if (bundle := self._bundle(message)) is None:
            return
        transient = message.content.get("transient")
        display_id = transient.get("display_id") if isinstance(transient, Mapping) else None
        update = message.msg_type == "update_display_data"
        if isinstance(display_id, (str, int)) and not isinstance(display_id, bool):
            self._output.display(*bundle, f"sandbox/{self._id}/{str(display_id)[:200]}", update=update)
        elif not update:
            self._output.display(*bundle, None)

    def _result(self, message: Message) -> None:
        if (bundle := self._bundle(message)) is not None:
            self._output.result(*bundle)

    def _bundle(self, message: Message) -> tuple[dict[str, Any], dict[str, Any]] | None:
        data, metadata = message.content.get("data"), message.content.get("metadata")
        if not isinstance(data, Mapping) or not isinstance(metadata or {}, Mapping):
            return None
        self._show_pending()
        size = max(message.size, 1)
        if size > DISPLAY_LIMIT:
            self._output.note(f"[sandbox {self._id}: a display of {size // MIB} MiB is left out; the limit is 64 MiB]")
            return None
        if not self._spend(size):
            return None
        kept, about = self._rules(data, metadata or {})
        return clean_json(kept), clean_json(about)

    def _clear(self, message: Message) -> None:
        self._show_pending()
        self._shown, self._cut = 0, False
        self._output.clear(wait=message.content.get("wait") is True)

    def _comm(self, message: Message) -> None:
        self._show_pending()
        self._output.flush()  # An Output widget takes what comes between two of its messages.
        self._on_comm(message)

    def _error(self, message: Message) -> None:
        self._show_pending()
        self._pending = self._remote_error(message.content)

    def _reply(self, message: Message) -> None:
        status = message.content.get("status")
        if status == "ok":
            self._show_pending()
        elif self._pending is None:
            failed = self._remote_error(message.content, "Aborted" if status == "aborted" else "Error")
            if self._last is not None and (self._last.ename, self._last.evalue) == (failed.ename, failed.evalue):
                failed.traceback = []  # Output came after it (a warning, on sys.exit()), so it stands above already.
            self._pending = failed

    def _remote_error(self, content: Mapping[str, Any], name: str = "Error") -> RemoteError:
        ename, evalue, lines = content.get("ename"), content.get("evalue"), content.get("traceback")
        return remote_error(
            self._id,
            clean_text(ename) if isinstance(ename, str) else name,
            clean_text(evalue) if isinstance(evalue, str) else "",
            [clean_text(line) for line in lines if isinstance(line, str)] if isinstance(lines, list) else [],
        )

    def _show_pending(self) -> None:
        """An error after which the code went on (``get_ipython().showtraceback()``) does not end the cell."""
        if self._pending is not None:
            self._last, self._pending = self._pending, None
            self._output.error(self._last)

    def _spend(self, size: int) -> bool:
        """Whether ``size`` more bytes may be shown; says once that they may not."""
        self._shown += size
        if self._shown <= self._limit:
            return True
        if not self._cut:
            self._cut = True
            limit = f"{self._limit / MIB:g} MiB (SandboxMagics.output_limit)"
            self._output.note(f"[sandbox {self._id}: the output of this cell is cut at {limit}]")
        return False
