"""How errors of a cell look: the remote traceback for code that failed, one plain sentence for everything else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..errors import SandboxError

_RED, _END = "\x1b[31m", "\x1b[39m"
MAX_NAME = 200
MAX_VALUE = 1024 * 1024
MAX_TRACEBACK_LINES = 10_000


class RemoteError(Exception):
    """Code in a sandbox raised an exception; the one class to catch for it.

    What is raised is a subclass with the name of the remote exception, so that notebooks and the programs that run
    them (nbclient, papermill) show and store the remote name. The remote exception object itself never travels.

    Parameters
    ----------
    sandbox_id:
        Where it happened.
    ename, evalue:
        The remote exception's class name and text.
    traceback:
        Lines, with ANSI colours, as the sandbox's kernel rendered them.
    """

    def __init__(self, sandbox_id: str, ename: str, evalue: str, traceback: Sequence[str] = ()) -> None:
        super().__init__(evalue)
        self.sandbox_id = sandbox_id
        self.ename = ename
        self.evalue = evalue
        self.traceback = list(traceback)

    def __str__(self) -> str:
        return self.evalue

    def __reduce__(self) -> Any:
        return (remote_error, (self.sandbox_id, self.ename, self.evalue, self.traceback))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of the local stack, which is ours and tells the user nothing."""
        return self.traceback or [f"{_RED}{self.ename}{_END}: {self.evalue}"]


def remote_error(sandbox_id: str, ename: str, evalue: str, traceback: Sequence[str] = ()) -> RemoteError:
    """A :class:`RemoteError` whose class carries the remote name."""
    name = re.sub(r"[^\w.]", "", ename)[:MAX_NAME] or "Exception"
    kind = type(name, (RemoteError,), {"__module__": __name__, "__doc__": RemoteError.__doc__})
    error: RemoteError = kind(sandbox_id, name, evalue[:MAX_VALUE], _bounded(traceback))
    return error


def _bounded(lines: Sequence[str]) -> list[str]:
    kept, size = [], 0
    for line in lines[:MAX_TRACEBACK_LINES]:
        size += len(line)
        if size > MAX_VALUE:
            kept.append("... (the rest of the traceback is left out)")
            break
        kept.append(line)
    return kept


def shown(exc: SandboxError) -> list[str]:
    """An error of our family as IPython shows it: class, code, sentence, and the next step on a line of its own."""
    first = f"{_RED}{type(exc).__name__}{_END} ({exc.code}): {exc.message}"
    return [first, exc.remedy] if exc.remedy else [first]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Errors of our family that leave this block show their sentence instead of a stack of our own functions."""
    try:
        yield
    except SandboxError as exc:
        # IPython asks the exception itself how it wants to be shown (``_render_traceback_``).
        exc.__dict__["_render_traceback_"] = partial(shown, exc)
        raise
