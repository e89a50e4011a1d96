"""Tab completion on magic lines: subcommands, options, and the IDs of one's own sandboxes."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from ..client.loop import background_loop
from ..errors import SandboxError
from .arguments import COMMANDS, OPTIONS, SANDBOX_OPTIONS

PATIENCE = 0.5
"""Seconds that the list of IDs may take; a completion that is late is worse than none."""

_VALUES = {"--network": ["none", "internet"], "--language": ["python"]}
_LINES = ("%sandbox", "%%sandbox")


def register(shell: InteractiveShell) -> None:
    """Complete ``%sandbox`` and ``%%sandbox`` lines in ``shell``."""
    set_hook: Any = shell.set_hook
    set_hook("complete_command", _complete_line, str_key=_LINES[0])
    set_hook("complete_command", _complete_cell, str_key=_LINES[1])


def unregister(shell: InteractiveShell) -> None:
    """Undo :func:`register`."""
    hooks = shell.strdispatchers["complete_command"].strs
    for line in _LINES:
        hooks.pop(line, None)


def _complete_line(_shell: Any, event: Any) -> list[str]:
    words = _before(event)
    if not words:
        return list(COMMANDS)
    if words[0] in ("list", "help") or (len(words) > 1 and words[0] != "create"):
        return []
    return _ids() if len(words) == 1 else _options(words, SANDBOX_OPTIONS)


def _complete_cell(shell: Any, event: Any) -> list[str]:
    words = _before(event)
    if words and words[-1] == "-i":
        return [name for name in shell.user_ns if not name.startswith("_")]
    if not words and not event.symbol.startswith("-"):
        return _ids()
    return _options(words, tuple(OPTIONS))


def _before(event: Any) -> list[str]:
    """The words between the magic's name and the one that is being completed."""
    words: list[str] = event.line[: len(event.line)].split()[1:]
    return words[:-1] if words and event.symbol and words[-1].endswith(event.symbol) else words


def _options(words: list[str], names: tuple[str, ...]) -> list[str]:
    if words and words[-1] in _VALUES:
        return _VALUES[words[-1]]
    return [name for name in names if name in ("-i", "-o") or name not in words]


def _ids() -> list[str]:
    from ..client.handles import list_sandboxes_async

    listing = asyncio.run_coroutine_threadsafe(list_sandboxes_async(), background_loop())
    try:
        return [sandbox.id for sandbox in listing.result(PATIENCE)]
    except (SandboxError, concurrent.futures.TimeoutError):
        listing.cancel()
        return []  # No manager to ask: there is nothing to complete, and Tab is no place for an error.
