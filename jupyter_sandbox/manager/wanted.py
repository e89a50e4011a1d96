"""What a PUT asks for: options, the client's environment and Python; read and checked before anything starts."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from ..engines.base import Interpreter
from ..errors import error
from ..options import SandboxOptions
from .records import SandboxRecord

_FIELDS = ("executable", "prefix", "base_prefix")


def own_interpreter() -> Interpreter:
    """The Python that runs this manager, for clients that name none."""
    return Interpreter(executable=sys.executable, prefix=sys.prefix, base_prefix=sys.base_prefix)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The body of a PUT (docs/protocol.md). ``preload``: a Python context will be asked for at once."""

    options: SandboxOptions = field(default_factory=SandboxOptions)
    environment: SandboxOptions = field(default_factory=SandboxOptions)
    interpreter: Interpreter = field(default_factory=own_interpreter)
    start: bool = True
    preload: bool = False

    @classmethod
    def from_json(cls, body: object) -> Wanted:
        """Read a body.

        Raises
        ------
        InvalidInput
            Naming the value and the rule that it breaks.
        """
        if not isinstance(body, dict):
            raise error("INVALID_REQUEST", "The body is a JSON object.")
        return cls(
            options=SandboxOptions.from_json(body.get("options", {})),
            environment=SandboxOptions.from_json(body.get("environment", {})),
            interpreter=_interpreter(body.get("interpreter")),
            start=_flag(body, "start", default=True),
            preload=_flag(body, "preload", default=False),
        )


def refuse_conflicts(given: SandboxOptions, record: SandboxRecord) -> None:
    """Refuse an engine, image or network other than the sandbox was created with.

    Raises
    ------
    Conflict
        ``OPTION_CONFLICT``, naming both values and the way out.
    """
    for name in ("engine", "image", "network"):
        new, old = getattr(given, name), getattr(record, name)
        if new is not None and new not in (old, "auto"):
            raise error(
                "OPTION_CONFLICT",
                f"The sandbox {record.id!r} exists with {name}={old!r}, not {new!r}; that cannot be changed.",
                remedy=(
                    f"Leave {name} out to use it as it is, use another ID, "
                    f"or destroy it with its files first: `%sandbox destroy {record.id}`."
                ),
                option=name,
                existing=old,
                given=new,
            )


def _flag(body: dict[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise error("INVALID_REQUEST", f"{name!r} is true or false.")
    return value


def _interpreter(value: object) -> Interpreter:
    if value is None:
        return own_interpreter()
    if not isinstance(value, dict) or set(value) != set(_FIELDS):
        raise error("INVALID_REQUEST", f"'interpreter' is an object with {', '.join(_FIELDS)}.")
    for name, path in value.items():
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise error("INVALID_REQUEST", f"interpreter.{name} is an absolute path.")
    return Interpreter(**value)
