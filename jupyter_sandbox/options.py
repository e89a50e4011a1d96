"""The options of a sandbox: their types, defaults, ranges and precedence (design section 6).

Precedence, field by field: given now > stored with the sandbox > the client's environment > the manager's
configuration > the default. :class:`SandboxOptions` holds what somebody gave (None: not given), the layers
are merged by :func:`merge`, and :class:`ResolvedOptions` holds the values that apply.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

from .errors import SandboxWarning, error

EngineName = Literal["auto", "docker", "bubblewrap"]
Network = Literal["none", "internet"]

_DURATION = re.compile(r"([0-9]+)([smh])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
MAX_DURATION = 10 * 365 * 24 * 3600.0
"""Seconds; longer ones (ten years) are taken for mistakes, and would overflow clocks."""


def parse_duration(value: object, name: str = "duration") -> float:
    """Seconds of a duration: ``"30s"``, ``"5m"``, ``"1h"``, or a finite number above 0.

    Raises
    ------
    InvalidInput
        ``INVALID_DURATION``, naming ``name`` and the value.
    """
    seconds = math.nan
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)) and len(value) <= 20:
        seconds = float(int(match[1]) * _UNIT_SECONDS[match[2]])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
    if not (math.isfinite(seconds) and 0 < seconds <= MAX_DURATION):
        raise error("INVALID_DURATION", f"{name}={_shown(value)} is not a duration.")
    return seconds


@dataclass(frozen=True, kw_only=True)
class ContainerTimeouts:
    """How long the steps of a start may take, in milliseconds; None where not given.

    Ranges and defaults are those of Cloudflare's Sandbox SDK (``container_timeouts`` of design section 6).
    """

    instance_get_timeout_ms: int | None = None
    port_ready_timeout_ms: int | None = None
    wait_interval_ms: int | None = None

    def __post_init__(self) -> None:
        for name, spec in TIMEOUTS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not spec.low <= value <= spec.high:
                raise error(
                    "INVALID_TIMEOUT",
                    f"{name}={_shown(value)} is not a whole number of milliseconds from {spec.low} to {spec.high}.",
                )


@dataclass(frozen=True)
class TimeoutSpec:
    """Default and range of one container timeout, and the environment variable that sets it."""

    default: int
    low: int
    high: int
    variable: str


TIMEOUTS: dict[str, TimeoutSpec] = {
    "instance_get_timeout_ms": TimeoutSpec(30_000, 5_000, 300_000, "SANDBOX_INSTANCE_TIMEOUT_MS"),
    "port_ready_timeout_ms": TimeoutSpec(90_000, 10_000, 600_000, "SANDBOX_PORT_TIMEOUT_MS"),
    "wait_interval_ms": TimeoutSpec(1_000, 100, 5_000, "SANDBOX_POLL_INTERVAL_MS"),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a sandbox may use; None where not given.

    ``cpus`` in CPUs (fractions allowed), ``memory`` and ``disk`` in bytes (``"512m"`` and ``"2g"`` are read as
    powers of 1024), ``pids`` in processes and threads.
    """

    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None
    disk: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", parse_size(self.memory, "limits.memory"))
        object.__setattr__(self, "disk", parse_size(self.disk, "limits.disk"))
        _in_range("limits.cpus", self.cpus, 0.05, 1024, "CPUs", (int, float))
        _in_range("limits.memory", self.memory, 64 * MIB, 16 * 1024 * GIB, "bytes", (int,))
        _in_range("limits.pids", self.pids, 16, 4_194_304, "processes", (int,))
        _in_range("limits.disk", self.disk, MIB, 1024 * 1024 * GIB, "bytes", (int,))


MIB = 1024**2
GIB = 1024**3
_SIZE = re.compile(r"([0-9]+)\s*(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)


def parse_size(value: object, name: str) -> int | None:
    """Bytes of ``"512m"`` or ``"2g"`` (powers of 1024); what is no text is returned as it is.

    Raises
    ------
    InvalidInput
        ``INVALID_OPTION``, naming ``name`` and the value.
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip()) if len(value) <= 20 else None
        if match is None:
            raise error("INVALID_OPTION", f"{name}={_shown(value)} is not a size; write '512m', '2g' or bytes.")
        return int(match[1]) * int(1024 ** ("kmgt".index(match[2].lower()) + 1 if match[2] else 0))
    return cast("int | None", value)


def _in_range(name: str, value: object, low: float, high: float, unit: str, types: tuple[type, ...]) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, types) or not low <= cast(float, value) <= high:
        raise error("INVALID_OPTION", f"{name}={_shown(value)} is not a number of {unit} from {low:g} to {high:g}.")


@dataclass(frozen=True, kw_only=True)
class SandboxOptions:
    """What was given for a sandbox; None means "not given". Every value is checked on construction.

    Parameters
    ----------
    sleep_after, stop_after, max_busy:
        Durations (:func:`parse_duration`); kept as seconds.
    keep_alive:
        Never sleeps by itself.
    base_url:
        Base for preview URLs, ``http`` or ``https``.
    container_timeouts, limits:
        A dict or the dataclass of the same name.
    env, labels:
        Names to strings. They travel through agent and records, never through engine configuration.
    engine, image, network:
        Cannot be changed once the sandbox exists.

    Raises
    ------
    InvalidInput
        ``INVALID_DURATION``, ``INVALID_TIMEOUT`` or ``INVALID_OPTION``, naming value and rule.
    """

    sleep_after: float | None = None
    keep_alive: bool | None = None
    stop_after: float | None = None
    max_busy: float | None = None
    base_url: str | None = None
    container_timeouts: ContainerTimeouts = field(default_factory=ContainerTimeouts)
    env: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    limits: Limits = field(default_factory=Limits)
    engine: EngineName | None = None
    image: str | None = None
    network: Network | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("sleep_after", "stop_after", "max_busy"):
            if (value := getattr(self, name)) is not None:
                put(self, name, parse_duration(value, name))
        put(self, "container_timeouts", _group(ContainerTimeouts, "container_timeouts", self.container_timeouts))
        put(self, "limits", _group(Limits, "limits", self.limits))
        if self.keep_alive is not None and not isinstance(self.keep_alive, bool):
            raise error("INVALID_OPTION", f"keep_alive={_shown(self.keep_alive)} is not True or False.")
        _check_choice("engine", self.engine, get_args(EngineName))
        _check_choice("network", self.network, get_args(Network))
        _check_base_url(self.base_url)
        _check_image(self.image)
        put(self, "env", _string_map("env", self.env, _ENV_NAME))
        put(self, "labels", _string_map("labels", self.labels, _LABEL_NAME))

    @classmethod
    def from_json(cls, body: object) -> SandboxOptions:
        """Read what :meth:`to_json` wrote; unknown names are refused by name."""
        if not isinstance(body, dict):
            raise error("INVALID_REQUEST", "Options are a JSON object.")
        known = {f.name for f in dataclasses.fields(cls)}
        for name in body:
            if name not in known:
                raise error(
                    "INVALID_OPTION", f"There is no option {_shown(name)}; options are {', '.join(sorted(known))}."
                )
        return cls(**body)

    def to_json(self) -> dict[str, Any]:
        """Only what was given, as JSON types; durations in seconds, sizes in bytes."""
        given = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {name: value for name, value in given.items() if value is not None}


_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)
_LABEL_NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}", re.ASCII)
# A Docker reference: [host[:port]/]path[:tag][@digest]; the exact grammar is left to the engine.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", re.ASCII)
_BASE_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?", re.ASCII)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise error("INVALID_OPTION", f"{name}={_shown(value)} is not one of {', '.join(choices)}.")


def _check_base_url(value: object) -> None:
    if value is not None and not (isinstance(value, str) and _BASE_URL.fullmatch(value)):
        raise error("INVALID_OPTION", f"base_url={_shown(value)} is not an http or https URL without query and login.")


def _check_image(value: object) -> None:
    if value is not None and not (isinstance(value, str) and _IMAGE.fullmatch(value)):
        raise error("INVALID_OPTION", f"image={_shown(value)} is not the name of an image.")


def _string_map(name: str, value: object, pattern: re.Pattern[str]) -> Mapping[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise error("INVALID_OPTION", f"{name} is a dict of names to strings, not {type(value).__name__}.")
    for key, text in value.items():
        if not (isinstance(key, str) and pattern.fullmatch(key)):
            raise error("INVALID_OPTION", f"{name} has the name {_shown(key)}, which is not allowed.")
        if not isinstance(text, str) or "\0" in text:
            # The value itself may be a secret: it is never shown.
            raise error("INVALID_OPTION", f"{name}[{key!r}] is not a str without NUL characters.")
    return dict(value)


_Group = TypeVar("_Group", ContainerTimeouts, Limits)


def _group(cls: type[_Group], name: str, value: object) -> _Group:
    if isinstance(value, cls):
        return value
    if value is None:
        return cls()
    if not isinstance(value, Mapping):
        raise error("INVALID_OPTION", f"{name} is a dict or {cls.__name__}, not {type(value).__name__}.")
    known = [f.name for f in dataclasses.fields(cls)]
    for key in value:
        if key not in known:
            raise error("INVALID_OPTION", f"{name} has no {_shown(key)}; it has {', '.join(known)}.")
    return cls(**value)


def _plain(value: Any) -> Any:
    if isinstance(value, (ContainerTimeouts, Limits)):
        return {k: v for k, v in dataclasses.asdict(value).items() if v is not None} or None
    return dict(value) if isinstance(value, Mapping) else value


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # An int of more digits than Python converts.
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True, kw_only=True)
class ResolvedLimits:
    """The limits that apply: CPUs, bytes, processes, bytes."""

    cpus: float = 2.0
    memory: int = 2 * GIB
    pids: int = 512
    disk: int = 10 * GIB


@dataclass(frozen=True, kw_only=True)
class ResolvedTimeouts:
    """The container timeouts that apply, in milliseconds."""

    instance_get_timeout_ms: int = TIMEOUTS["instance_get_timeout_ms"].default
    port_ready_timeout_ms: int = TIMEOUTS["port_ready_timeout_ms"].default
    wait_interval_ms: int = TIMEOUTS["wait_interval_ms"].default


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions:
    """The values that apply to a sandbox, and the defaults of every option."""

    sleep_after: float = 600.0
    keep_alive: bool = False
    stop_after: float = 3600.0
    max_busy: float = 24 * 3600.0
    base_url: str | None = None
    container_timeouts: ResolvedTimeouts = field(default_factory=ResolvedTimeouts)
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: ResolvedLimits = field(default_factory=ResolvedLimits)
    engine: EngineName = "auto"
    image: str | None = None
    network: Network | None = None


def merge(*layers: SandboxOptions) -> SandboxOptions:
    """Merge layers field by field, the first that gives a field wins; ``limits`` and timeouts by their fields."""
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        for name, value in layer.to_json().items():
            grouped = name in ("limits", "container_timeouts")
            merged[name] = {**merged.get(name, {}), **value} if grouped else value
    return SandboxOptions(**merged)


def resolve(*layers: SandboxOptions) -> ResolvedOptions:
    """The values that apply, from ``layers`` in order of precedence and the defaults."""
    given = merge(*layers).to_json()
    limits = ResolvedLimits(**given.pop("limits", {}))
    timeouts = ResolvedTimeouts(**given.pop("container_timeouts", {}))
    return ResolvedOptions(limits=limits, container_timeouts=timeouts, **given)


def from_environment(environ: Mapping[str, str] | None = None) -> SandboxOptions:
    """The layer that the client's environment gives.

    A bad value warns (:class:`SandboxWarning`), names the variable, and counts as not given.
    """
    env = os.environ if environ is None else environ
    timeouts: dict[str, int] = {}
    for name, spec in TIMEOUTS.items():
        if (text := env.get(spec.variable)) is None:
            continue
        if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) and spec.low <= int(text) <= spec.high:
            timeouts[name] = int(text)
        else:
            _warn(spec.variable, text, f"a whole number of milliseconds from {spec.low} to {spec.high}")
    engine = env.get("JUPYTER_SANDBOX_ENGINE")
    if engine is not None and engine not in get_args(EngineName):
        _warn("JUPYTER_SANDBOX_ENGINE", engine, f"one of {', '.join(get_args(EngineName))}")
        engine = None
    return SandboxOptions(container_timeouts=ContainerTimeouts(**timeouts), engine=cast("EngineName | None", engine))


def _warn(variable: str, text: str, rule: str) -> None:
    warnings.warn(f"{variable}={_shown(text)} is ignored: it is not {rule}.", SandboxWarning, stacklevel=4)
