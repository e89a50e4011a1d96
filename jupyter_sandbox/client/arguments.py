"""Checks of what users pass to a handle's methods, made before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from ..errors import error
from ..options import MAX_DURATION, SandboxOptions


def text(name: str, value: object) -> str:
    """A str without NUL characters that has a UTF-8 form."""
    if not isinstance(value, str):
        raise error("INVALID_REQUEST", f"{name} is a str, not {type(value).__name__}.")
    if "\0" in value or not _encodes(value):
        raise error("INVALID_REQUEST", f"{name}={_shown(value)} has a NUL character, or is not Unicode text.")
    return value


def timeout(value: object) -> float | None:
    """Seconds above 0, or None for no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_DURATION:
        rule = f"a number of seconds above 0 and up to {MAX_DURATION:.0f}, nor None"
        raise error("INVALID_TIMEOUT", f"timeout={_shown(value)} is not {rule}.")
    return float(value)


def path(value: object, name: str = "path") -> str:
    """A path inside the sandbox; a relative one lies below ``/workspace``."""
    given = os.fspath(value) if isinstance(value, PurePath) else value
    if not isinstance(given, str) or not given or "\0" in given or not _encodes(given):
        raise error("INVALID_PATH", f"{name}={_shown(value)} is not a usable path.")
    return given


def optional_path(value: object, name: str) -> str | None:
    """As :func:`path`, or None."""
    return None if value is None else path(value, name)


def environment(value: Mapping[str, str] | None) -> dict[str, str]:
    """Names to strings, by the rule of the option ``env``."""
    return dict(SandboxOptions(env=value).env or {})


def stdin(value: object) -> bytes | None:
    """What a command reads: bytes as they are, text as UTF-8."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        raise error("INVALID_REQUEST", f"stdin is str or bytes, not {type(value).__name__}.")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise error("INVALID_REQUEST", "stdin is not Unicode text.", remedy="Give it as bytes.") from None


def name(value: object) -> str:
    """The name of a context: 1 to 64 printable characters."""
    given = text("context", value)
    if not 1 <= len(given) <= 64 or not given.isprintable():
        raise error("INVALID_REQUEST", f"context={_shown(value)} is not a name of 1 to 64 printable characters.")
    return given


def callback(label: str, value: Any) -> Any:
    """Something that can be called, or None."""
    if value is not None and not callable(value):
        raise error("INVALID_REQUEST", f"{label} is a function, not {type(value).__name__}.")
    return value


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:  # An int of more digits than Python converts.
        return f"a very large {type(value).__name__}"
    return shown if len(shown) <= 80 else shown[:77] + "..."
