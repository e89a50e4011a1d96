"""The results that manager and client share: status, command and code results, files, exposed ports."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

State = Literal["absent", "starting", "running", "sleeping", "stopped", "destroying", "failed"]
"""States of a sandbox (design section 7)."""


@dataclass(frozen=True)
class Protection:
    """One line of a sandbox's isolation: what is protected, whether it is enforced here, else why not."""

    name: str
    enforced: bool
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name}: " + ("enforced" if self.enforced else f"not enforced ({self.reason})")


@dataclass(frozen=True)
class Usage:
    """What a sandbox uses, measured by the engine from outside; None where it cannot be measured here.

    ``cpu_seconds`` since the start of the runtime, ``memory`` and ``disk`` in bytes, ``pids`` in processes and
    threads, ``oom_kills`` since the start of the runtime.
    """

    cpu_seconds: float | None = None
    memory: int | None = None
    disk: int | None = None
    pids: int | None = None
    oom_kills: int | None = None


@dataclass(frozen=True)
class ContextInfo:
    """One context (kernel) in a sandbox."""

    id: str
    name: str
    language: str
    state: str


@dataclass(frozen=True)
class ExposedPort:
    """A port that is reachable at a preview URL."""

    url: str
    path_url: str
    port: int
    name: str | None
    access: Literal["owner", "link"]
    token: str = field(repr=False)


@dataclass(frozen=True)
class SandboxSummary:
    """One line of :func:`jupyter_sandbox.list_sandboxes`; times are timezone-aware UTC."""

    id: str
    state: State
    engine: str | None = None
    image: str | None = None
    created_at: datetime | None = None
    last_active_at: datetime | None = None
    sleeps_at: datetime | None = None
    keep_alive: bool = False


@dataclass(frozen=True)
class SandboxStatus:
    """All that is known of one sandbox without waking it; last known values where it is asleep."""

    id: str
    state: State
    engine: str | None = None
    isolation: tuple[Protection, ...] = ()
    created_at: datetime | None = None
    last_active_at: datetime | None = None
    sleeps_at: datetime | None = None
    keep_alive: bool = False
    usage: Usage = field(default_factory=Usage)
    limits: Mapping[str, float] = field(default_factory=dict)
    exposed_ports: tuple[ExposedPort, ...] = ()
    contexts: tuple[ContextInfo, ...] = ()
    processes: tuple[Mapping[str, Any], ...] = ()
    error: str | None = None
    network: str | None = None


@dataclass(frozen=True)
class ExecResult:
    """What a command did. ``duration`` in seconds; ``exit_code`` 124 with ``timed_out``, 127 if not found."""

    stdout: str
    stderr: str
    exit_code: int
    timed_out: bool
    duration: float
    command: str

    @property
    def success(self) -> bool:
        """Whether the command ended with exit code 0."""
        return self.exit_code == 0


@dataclass(frozen=True)
class FileInfo:
    """One entry of :meth:`Sandbox.list_files`. ``size`` in bytes, ``path`` absolute inside the sandbox."""

    name: str
    path: str
    type: Literal["file", "directory", "symlink", "other"]
    size: int
    modified_at: datetime
    mode: int


@dataclass(frozen=True, repr=False)
class Result:
    """One result of code: a MIME bundle (``data``), as Jupyter has it, with its metadata.

    Binary types hold base64 text in ``data``; the properties decode it.
    """

    data: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Result({', '.join(f'{kind}: {_shown(kind, value)}' for kind, value in self.data.items())})"

    @property
    def text(self) -> str | None:
        """``text/plain``."""
        return _text(self.data.get("text/plain"))

    @property
    def html(self) -> str | None:
        """``text/html``. It comes from the sandbox and is not to be trusted."""
        return _text(self.data.get("text/html"))

    @property
    def markdown(self) -> str | None:
        """``text/markdown``."""
        return _text(self.data.get("text/markdown"))

    @property
    def latex(self) -> str | None:
        """``text/latex``."""
        return _text(self.data.get("text/latex"))

    @property
    def svg(self) -> str | None:
        """``image/svg+xml``."""
        return _text(self.data.get("image/svg+xml"))

    @property
    def json(self) -> Any:
        """``application/json``."""
        return self.data.get("application/json")

    @property
    def png(self) -> bytes | None:
        """``image/png``, decoded."""
        return _binary(self.data.get("image/png"))

    @property
    def jpeg(self) -> bytes | None:
        """``image/jpeg``, decoded."""
        return _binary(self.data.get("image/jpeg"))


_SHOWN = 200
"""Characters of a value that a repr shows; a picture would fill the screen."""


def _shown(kind: str, value: Any) -> str:
    if isinstance(value, (list, dict)):
        return f"<{type(value).__name__} of {len(value)}>"
    if not isinstance(value, str) or len(value) <= _SHOWN:
        return repr(value)
    return repr(value[:_SHOWN] + "…") if kind.startswith("text/") else f"<{len(value)} characters>"


def _text(value: Any) -> str | None:
    return "".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else None


def _binary(value: Any) -> bytes | None:
    try:
        return base64.b64decode(value) if isinstance(value, str) else None
    except ValueError:
        return None


@dataclass
class Logs:
    """What code wrote, in order, as it arrived."""

    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExecutionError:
    """The exception that ended the code; ``traceback`` as lines with ANSI colours."""

    name: str
    value: str
    traceback: tuple[str, ...] = ()


@dataclass
class Execution:
    """What :meth:`Sandbox.run_code` returns."""

    results: list[Result] = field(default_factory=list)
    logs: Logs = field(default_factory=Logs)
    error: ExecutionError | None = None
    execution_count: int | None = None

    @property
    def text(self) -> str | None:
        """``text/plain`` of the last result, which is the value of the last line if it has one."""
        return self.results[-1].text if self.results else None


_Model = TypeVar("_Model")


def to_json(value: Any) -> Any:
    """A dataclass of this file as JSON types; times as ISO 8601 in UTC."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


_TIMES = frozenset({"created_at", "last_active_at", "sleeps_at", "modified_at"})
_NESTED: dict[str, type] = {
    "isolation": Protection,
    "usage": Usage,
    "exposed_ports": ExposedPort,
    "contexts": ContextInfo,
}


def from_json(cls: type[_Model], body: Mapping[str, Any]) -> _Model:
    """Read what :func:`to_json` wrote into ``cls``; fields that ``cls`` does not know are left out.

    A newer peer of the same major version may send more than this version knows.
    """
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: _read(name, value) for name, value in body.items() if name in known})


def _read(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _TIMES:
        return datetime.fromisoformat(value)
    if (nested := _NESTED.get(name)) is not None:
        return tuple(from_json(nested, item) for item in value) if isinstance(value, list) else from_json(nested, value)
    return tuple(value) if isinstance(value, list) else value
