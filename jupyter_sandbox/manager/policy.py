"""What a principal may have: ceilings on every option; excess that was asked for is refused, defaults are lowered."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from ..engines.base import Interpreter
from ..errors import SandboxError, error
from ..options import EngineName, Limits, Network, ResolvedOptions, SandboxOptions
from .principals import Principal

log = logging.getLogger(__name__)

_DURATIONS = ("sleep_after", "stop_after", "max_busy")
_LIMITS = ("cpus", "memory", "pids", "disk")
_SYSTEM = Path("/usr")
"""What every sandbox without an image sees anyway."""


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Upper bounds on the options of a principal; None (and an empty ``limits``) bounds nothing.

    Parameters
    ----------
    sleep_after, stop_after, max_busy:
        The longest durations, as the options have them; ``max_busy`` bounds ``extend`` as well.
    keep_alive:
        Whether a sandbox may be kept alive for ever.
    limits:
        The highest ``cpus``, ``memory``, ``pids`` and ``disk``.
    network:
        The widest network: ``"none"`` or ``"internet"``.
    engines:
        The engines that may be asked for. Where ``auto`` means another one, it means the first of these.
    images:
        The images that may be asked for; ``"*"`` stands for any. Where the default image is not among them, the first
        of these is the default. None: the default image and those of ``SandboxManager.images``.
    prefixes:
        The directories in which a client's Python may be that a sandbox without an image sees; ``/usr`` always is.
    sandboxes:
        How many sandboxes an owner may have at once.
    """

    sleep_after: float | None = None
    stop_after: float | None = None
    max_busy: float | None = None
    keep_alive: bool = True
    limits: Limits = field(default_factory=Limits)
    network: Network = "internet"
    engines: tuple[str, ...] | None = None
    images: tuple[str, ...] | None = None
    prefixes: tuple[str, ...] | None = None
    sandboxes: int | None = None

    def __post_init__(self) -> None:
        # Those named like options are read and checked as these are.
        names = (*_DURATIONS, "keep_alive", "limits", "network")
        as_options = SandboxOptions(**{name: getattr(self, name) for name in names})
        for name in names:
            object.__setattr__(self, name, getattr(as_options, name))
        for name in ("engines", "images", "prefixes"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        _check(self)


def _names(name: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise error("INVALID_OPTION", f"{name}={value!r} is not a list of names.")
    names = tuple(value)
    if not names or not all(isinstance(one, str) and one for one in names):
        raise error("INVALID_OPTION", f"{name}={value!r} is not a list of at least one name.")
    return names


def _check(ceilings: Ceilings) -> None:
    for one in ceilings.engines or ():
        if one == "auto" or one not in get_args(EngineName):
            raise error("INVALID_OPTION", f"engines={ceilings.engines!r} has {one!r}, which is no engine.")
    for one in ceilings.prefixes or ():
        if not Path(one).is_absolute() or ".." in Path(one).parts:
            raise error("INVALID_OPTION", f"prefixes={ceilings.prefixes!r} has {one!r}, which is no absolute path.")
    count = ceilings.sandboxes
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
        raise error("INVALID_OPTION", f"sandboxes={count!r} is not a number of sandboxes.")
    if not isinstance(ceilings.keep_alive, bool) or ceilings.network is None:
        raise error("INVALID_OPTION", "keep_alive is True or False, and network is 'none' or 'internet'.")


Rule = Callable[[Principal], "Ceilings | Mapping[str, Any]"]


def no_ceilings(_: Principal) -> Ceilings:
    """The policy of a personal deployment: the machine is the user's own."""
    return Ceilings()


class Policy:
    """Asks the configured rule, and never takes its failure for a permission.

    Parameters
    ----------
    rule:
        Given a principal, returns :class:`Ceilings`, or a mapping with fields of it.
    """

    def __init__(self, rule: Rule = no_ceilings) -> None:
        self._rule = rule

    def __call__(self, principal: Principal) -> Ceilings:
        """The ceilings of ``principal``.

        Raises
        ------
        Denied
            ``POLICY_DENIED`` if the rule fails, or returns something else.
        """
        try:
            found = self._rule(principal)
            return found if isinstance(found, Ceilings) else Ceilings(**found)
        except Exception as exc:  # The rule is an administrator's program: whatever it raises must allow nothing.
            log.exception("the policy failed for %s", principal.actor)
            said = exc.message if isinstance(exc, SandboxError) else f"{type(exc).__name__}: {exc}"
            raise error("POLICY_DENIED", f"The policy of this manager failed ({said[:300]}).") from exc


def refuse_excess(given: SandboxOptions, ceilings: Ceilings) -> None:
    """Refuse what was asked for above its ceiling. Images are a matter of :mod:`.images`.

    Raises
    ------
    Denied
        ``POLICY_DENIED``, naming value and ceiling.
    """
    for name in _DURATIONS:
        _refuse_above(name, getattr(given, name), getattr(ceilings, name), " s")
    for name in _LIMITS:
        _refuse_above(f"limits.{name}", getattr(given.limits, name), getattr(ceilings.limits, name))
    if given.keep_alive and not ceilings.keep_alive:
        raise denied("keep_alive", True, False, "keep_alive=True is not allowed here.")
    if given.network == "internet" and ceilings.network == "none":
        raise denied("network", "internet", "none", "network='internet' is not allowed here, only 'none'.")
    if ceilings.engines is not None and given.engine not in (None, "auto", *ceilings.engines):
        allowed = ", ".join(map(repr, ceilings.engines))
        raise denied(
            "engine", given.engine, ceilings.engines, f"engine={given.engine!r} is not allowed here, only {allowed}."
        )


def refuse_extension(seconds: float, ceilings: Ceilings) -> None:
    """Refuse to keep a sandbox awake for longer than it may be without work."""
    _refuse_above("duration", seconds, ceilings.max_busy, " s")


def refuse_interpreter(interpreter: Interpreter, ceilings: Ceilings) -> None:
    """Refuse a client's Python outside of ``prefixes``: a sandbox would show its directory to whoever names it.

    Both the path as given and where it leads to must be inside: a link may be turned elsewhere afterwards.

    Raises
    ------
    Denied
        ``POLICY_DENIED``, naming path and directories.
    """
    if ceilings.prefixes is None:
        return
    allowed = [Path(one) for one in ceilings.prefixes] + [_SYSTEM]
    for text in (interpreter.prefix, interpreter.base_prefix, interpreter.executable):
        if not _is_inside(Path(text), allowed):
            names = ", ".join(map(str, allowed))
            raise denied(
                "prefixes",
                text,
                ceilings.prefixes,
                f"The Python at {text} may not be used in a sandbox here, only one below {names}.",
                "Use a Python from there for the notebook or script.",
            )


def _is_inside(path: Path, allowed: list[Path]) -> bool:
    def inside(one: Path) -> bool:
        return any(one.is_relative_to(other) for other in allowed)

    real = path.resolve()
    there = inside(real) or any(real.is_relative_to(one.resolve()) for one in allowed)
    return ".." not in path.parts and inside(path) and there


def lower(options: ResolvedOptions, ceilings: Ceilings) -> ResolvedOptions:
    """``options`` with each value at most its ceiling."""
    limits = {name: _least(getattr(options.limits, name), getattr(ceilings.limits, name)) for name in _LIMITS}
    durations = {name: _least(getattr(options, name), getattr(ceilings, name)) for name in _DURATIONS}
    return dataclasses.replace(
        options,
        **durations,
        limits=dataclasses.replace(options.limits, **limits),
        keep_alive=options.keep_alive and ceilings.keep_alive,
        network="none" if ceilings.network == "none" else options.network,
    )


def allowed_engine(decided: str, ceilings: Ceilings) -> str:
    """The engine that a default means: ``decided`` if it may be used, else the first that may."""
    return decided if ceilings.engines is None or decided in ceilings.engines else ceilings.engines[0]


def denied(option: str, value: object, ceiling: object, message: str, remedy: str | None = None) -> SandboxError:
    """``POLICY_DENIED``, with value and ceiling for programs."""
    return error("POLICY_DENIED", message, remedy=remedy, option=option, value=value, ceiling=ceiling)


def _refuse_above(name: str, value: float | None, ceiling: float | None, unit: str = "") -> None:
    if value is not None and ceiling is not None and value > ceiling:
        raise denied(
            name,
            value,
            ceiling,
            f"{name}={value:.15g}{unit} is above the ceiling of {ceiling:.15g}{unit}.",
            f"Ask for at most {ceiling:.15g}{unit}, or ask who runs this server for more.",
        )


def _least(value: Any, ceiling: Any) -> Any:
    return value if ceiling is None else min(value, ceiling)
