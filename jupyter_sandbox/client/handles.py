"""Get a handle, list what there is: the functions that users begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar, Unpack, overload

from .. import ids
from ..errors import error
from ..models import SandboxSummary
from ..options import ContainerTimeouts, EngineName, Limits, Network, SandboxOptions, from_environment
from .async_sandbox import AsyncSandbox
from .loop import run
from .remote import read
from .sandbox import Sandbox

BlockingHandle = TypeVar("BlockingHandle", bound=Sandbox)
AsyncHandle = TypeVar("AsyncHandle", bound=AsyncSandbox)


class GivenOptions(TypedDict, total=False):
    """The options of a sandbox as keyword arguments; see :class:`jupyter_sandbox.SandboxOptions`."""

    sleep_after: str | float | None
    keep_alive: bool | None
    stop_after: str | float | None
    max_busy: str | float | None
    base_url: str | None
    container_timeouts: ContainerTimeouts | Mapping[str, int] | None
    env: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    limits: Limits | Mapping[str, Any] | None
    engine: EngineName | None
    image: str | None
    network: Network | None


@overload
def get_sandbox(sandbox_id: str, *, normalize_id: bool = True, **options: Unpack[GivenOptions]) -> Sandbox: ...


@overload
def get_sandbox(
    sandbox_id: str,
    *,
    sandbox_class: type[BlockingHandle],
    normalize_id: bool = True,
    **options: Unpack[GivenOptions],
) -> BlockingHandle: ...


@overload
def get_sandbox(
    sandbox_id: str, *, sandbox_class: type[AsyncHandle], normalize_id: bool = True, **options: Unpack[GivenOptions]
) -> AsyncHandle: ...


def get_sandbox(
    sandbox_id: str,
    *,
    sandbox_class: type[Sandbox] | type[AsyncSandbox] = Sandbox,
    normalize_id: bool = True,
    **options: Unpack[GivenOptions],
) -> Sandbox | AsyncSandbox:
    r"""Return a handle to the sandbox ``sandbox_id``. Checks its arguments and does nothing else: no I/O.

    The sandbox is created, or woken, by the first operation on the handle. The same ID is the same sandbox,
    wherever it is used.

    Parameters
    ----------
    sandbox_id:
        1 to 63 of the characters ``a-z``, ``0-9`` and ``-``, with no ``-`` at either end.
    sandbox_class:
        :class:`Sandbox` (the default), :class:`AsyncSandbox`, or a subclass of one of them.
    normalize_id:
        True (the default): uppercase letters are lowered. False: they name another sandbox, without previews.
    sleep_after:
        Seconds without work after which it sleeps, or ``"30s"``, ``"5m"``, ``"1h"``. Default ``"10m"``.
    keep_alive:
        Never sleeps by itself; you must destroy it. Default False.
    stop_after, max_busy:
        Durations: from falling asleep to being stopped (``"1h"``); the longest time that what runs keeps it awake
        (``"24h"``).
    container_timeouts:
        :class:`ContainerTimeouts` or a dict: milliseconds that the steps of a start may take.
    env, labels:
        Variables for what runs inside; names for your own use.
    limits:
        :class:`Limits` or a dict: ``cpus``, ``memory``, ``pids``, ``disk``.
    engine, image, network, base_url:
        Where it runs, from what, with which network; the base of preview URLs.

    Raises
    ------
    InvalidInput
        An ID, a duration, a timeout or another option breaks its rule; the message names both.

    Examples
    --------
    >>> from jupyter_sandbox import get_sandbox
    >>> sandbox = get_sandbox("user-123", sleep_after="30m")
    >>> sandbox.exec("echo hello").stdout
    'hello\n'
    """
    _check_class(sandbox_class, (Sandbox, AsyncSandbox))
    return sandbox_class(
        ids.normalize(sandbox_id, normalize_id=normalize_id), SandboxOptions.from_json(options), from_environment()
    )


def get_async_sandbox(
    sandbox_id: str,
    *,
    sandbox_class: type[AsyncHandle] | None = None,
    normalize_id: bool = True,
    **options: Unpack[GivenOptions],
) -> AsyncHandle | AsyncSandbox:
    """As :func:`get_sandbox`, with coroutines for methods."""
    _check_class(chosen := sandbox_class or AsyncSandbox, (AsyncSandbox,))
    return chosen(
        ids.normalize(sandbox_id, normalize_id=normalize_id), SandboxOptions.from_json(options), from_environment()
    )


def list_sandboxes() -> list[SandboxSummary]:
    """Return one line for each sandbox of one's own. Wakes none."""
    return run(list_sandboxes_async())


async def list_sandboxes_async() -> list[SandboxSummary]:
    """As :func:`list_sandboxes`, for coroutines."""
    from .connection import Connection

    connection = Connection.acquire()
    try:
        answer = await connection.json("GET", "/sandboxes")
    finally:
        await connection.release()
    if not isinstance(lines := answer.get("sandboxes"), list):
        raise error("OUTPUT_INVALID", "The sandbox manager sent a list that is no list.")
    return [read(SandboxSummary, line) for line in lines]


def _check_class(given: object, bases: tuple[type, ...]) -> None:
    if not (isinstance(given, type) and issubclass(given, bases)):
        names = " or ".join(base.__name__ for base in bases)
        raise error("INVALID_OPTION", f"sandbox_class={given!r} is not a subclass of {names}.")
