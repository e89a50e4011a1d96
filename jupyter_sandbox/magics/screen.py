"""Where the output of a cell appears: IPython's own publishers, so that every front end and capture works.

Everything here runs in the thread that runs the cell, because ipykernel routes what a thread prints by the request
that this thread works on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from .pace import Pace

# What a terminal may be told: colours, moves by lines and columns, erasing. Others answer, paste or rename.
_TERMINAL_ESCAPES = re.compile(r"\x1b(?!\[[0-9;]*[mKABCDGJ])|[\x80-\x9f]")

PIECE = 1024 * 1024
"""Characters that ipykernel may gather into one ``stream`` message."""


class Screen:
    """The output area of the cell that runs now.

    Parameters
    ----------
    shell:
        The IPython shell, of a kernel or of a terminal.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self.is_kernel = getattr(shell, "kernel", None) is not None
        self._last = "stdout"
        self._waiting = 0
        self._pace = Pace()

    def stream(self, name: str, text: str) -> None:
        """Append ``text`` to stdout or stderr. What is written first appears first, also across the two."""
        if name != self._last or self._waiting + len(text) > PIECE:
            self._pace.step()
            _stream(self._last).flush()
            self._last, self._waiting = name, 0
        self._waiting += len(text)
        _stream(name).write(text if self.is_kernel else _for_terminal(text))

    def flush(self) -> None:
        """Hand on what was written; returns when the front end's side has taken it."""
        if self._waiting:
            self._waiting = 0
            _stream(self._last).flush()

    def result(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Show the value of an expression, numbered like any result of this notebook, and keep it as ``_``."""
        self._pace.step()
        sys.displayhook(RemoteResult(data, metadata))

    def display(
        self, data: Mapping[str, Any], metadata: Mapping[str, Any], display_id: str | None, *, update: bool = False
    ) -> None:
        """Show a display, or replace the one shown under ``display_id``."""
        self._pace.step()
        transient = {} if display_id is None else {"display_id": display_id}
        self._shell.display_pub.publish(
            data=dict(data), metadata=dict(metadata), transient=transient, update=update and display_id is not None
        )

    def clear(self, *, wait: bool) -> None:
        """Clear the cell's output, at once or when the next output comes."""
        self._pace.step()
        publisher: Any = self._shell.display_pub
        publisher.clear_output(wait=wait)

    def error(self, exc: BaseException) -> None:
        """Show an error that does not end the cell."""
        render = getattr(exc, "_render_traceback_", None)
        self._shell._showtraceback(type(exc), exc, render() if render else [str(exc)])

    def note(self, text: str) -> None:
        """Say something of our own, as one line on stderr."""
        self.stream("stderr", f"{text}\n")
        self.flush()


class RemoteResult:
    """The value of a sandbox's expression as a MIME bundle; what ``_`` and ``Out`` hold for such a cell.

    Parameters
    ----------
    data, metadata:
        The bundle that was shown.
    """

    def __init__(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        self.data = {"text/plain": "", **data}
        self.metadata = dict(metadata)

    def __repr__(self) -> str:
        return str(self.data["text/plain"])

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.data, self.metadata


def _stream(name: str) -> Any:
    return sys.stderr if name == "stderr" else sys.stdout


def _for_terminal(text: str) -> str:
    return _TERMINAL_ESCAPES.sub("\N{REPLACEMENT CHARACTER}", text)


def for_terminal(lines: Sequence[str]) -> list[str]:
    """Traceback lines without sequences that command a terminal."""
    return [_for_terminal(line) for line in lines]
