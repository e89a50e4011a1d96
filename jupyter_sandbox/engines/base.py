"""What an engine is: starts, stops, freezes, thaws and removes one isolated place with an agent in it.

Only the manager calls an engine, from its event loop. An engine knows no IDs, owners, timers or options
beyond :class:`StartSpec`; it keeps no records of its own: all that it needs to find a runtime again after the
manager was killed stands in :class:`Runtime`, which the manager records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import error
from ..models import Protection, Usage
from ..options import ResolvedLimits

Step = Literal["image", "container", "agent", "kernel"]
"""The steps of a start that a user sees."""

Progress = Callable[[Step], None]

UID_RANGE = (200_000, 265_535)
"""First and last uid that root gives to sandboxes, unless ``SandboxManager.uid_range`` says otherwise: above the
uids of people and services, and below those that systemd hands out (524288 and more)."""


@dataclass(frozen=True)
class Interpreter:
    """The Python of the client that created the sandbox; what runs inside a bubblewrap sandbox."""

    executable: str
    prefix: str
    base_prefix: str


@dataclass(frozen=True, kw_only=True)
class StartSpec:
    """One start, as the manager asks for it.

    Parameters
    ----------
    installation, lifetime, runtime:
        Opaque ids (design section 4). Engine objects are named by ``lifetime`` and carry ``installation``.
    handoff:
        JSON for the agent (docs/protocol.md, "Hand-off"); holds secrets, so it goes over the hand-off socket only.
    directory:
        The lifetime's own directory on the host (0700, exists); a bubblewrap engine keeps the files there.
    sockets:
        The private directory for sockets (0700, exists, short path).
    timeout:
        Seconds that all of ``start`` may take up to the agent's "ready".
    """

    installation: str
    lifetime: str
    runtime: str
    handoff: Mapping[str, Any]
    directory: Path
    sockets: Path
    limits: ResolvedLimits
    network: Literal["none", "internet"]
    image: str | None
    interpreter: Interpreter
    timeout: float


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One running (or frozen) place, as the records keep it.

    ``socket`` is the host's path at which the agent answers. ``handle`` is the engine's own JSON: enough to tell
    after a restart of the manager whether exactly this runtime still runs (boot id, start time, pid or container).
    """

    engine: str
    lifetime: str
    runtime: str
    socket: str
    handle: Mapping[str, Any]
    isolation: tuple[Protection, ...] = ()


@dataclass(frozen=True)
class Ending:
    """Why a runtime ended, as one phrase for a user ("it ran out of memory") and for programs."""

    reason: Literal["exited", "killed", "out_of_memory", "removed", "unknown"]
    text: str


@dataclass(frozen=True)
class Probe:
    """Whether an engine works on this machine, proven by a real run, and what it isolates here."""

    available: bool
    reason: str = ""
    remedy: str = ""
    isolation: tuple[Protection, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Engine(ABC):
    """Base of all engines. All methods are coroutines and may run concurrently for different lifetimes.

    For one lifetime the manager never calls two of ``start``, ``freeze``, ``thaw``, ``stop`` and ``destroy`` at once.
    Errors are those of :mod:`jupyter_sandbox.errors`: ``ENGINE_UNAVAILABLE`` when the engine itself is down.
    """

    name: ClassVar[str]
    default_image: str | None = None
    """The image of a sandbox that names none; None for an engine that has no images."""

    @abstractmethod
    async def probe(self) -> Probe:
        """Try whether this engine works here. Called when ``auto`` decides, by ``doctor``, and by tests."""

    @abstractmethod
    async def start(self, spec: StartSpec, progress: Progress) -> Runtime:
        """Start a runtime and return when its agent said "ready" on the hand-off socket.

        Called for a new lifetime and for a stopped one, whose files are then found as they were left. If it
        raises, nothing of this runtime is left behind; the lifetime's files stay.
        """

    @abstractmethod
    async def is_alive(self, runtime: Runtime) -> bool:
        """Whether exactly this runtime still exists, running or frozen.

        Called when the manager starts, for every recorded runtime, and when its agent does not answer.
        """

    @abstractmethod
    async def wait(self, runtime: Runtime) -> Ending:
        """Return when the runtime has ended. The manager awaits it once per runtime, and cancels it at will."""

    @abstractmethod
    async def freeze(self, runtime: Runtime) -> None:
        """Freeze every process of the runtime; memory is kept. Idempotent."""

    @abstractmethod
    async def thaw(self, runtime: Runtime) -> None:
        """Undo :meth:`freeze`: when it returns the agent can answer. Idempotent."""

    @abstractmethod
    async def stop(self, runtime: Runtime, grace: float) -> None:
        """End every process within ``grace`` seconds, by force if need be; files stay. Idempotent."""

    @abstractmethod
    async def destroy(self, lifetime: str, directory: Path) -> None:
        """Remove all that belongs to a lifetime: processes, containers, volumes, files. Idempotent."""

    @abstractmethod
    async def usage(self, runtime: Runtime) -> Usage:
        """What the runtime uses, measured from outside; works while it is frozen."""

    @abstractmethod
    async def set_limits(self, runtime: Runtime, limits: ResolvedLimits) -> None:
        """Apply other limits to a runtime at once, as far as this host enforces them."""

    @abstractmethod
    async def find(self, installation: str) -> set[str]:
        """The lifetimes of which engine objects of this installation exist, to remove orphans."""

    async def tidy(self, installation: str) -> None:  # noqa: ARG002 - for engines whose lifetimes share something
        """Remove what this installation's lifetimes share (a network, its rules) if no lifetime has it any more.

        ``destroy`` does so for the last lifetime; this is for what a killed manager left. Called when the manager
        starts, and by ``doctor --clean``. Idempotent.
        """
        return

    async def image_id(self, name: str) -> str:
        """What tells the content of the image ``name`` from every other. Called only where there is a default image.

        Raises
        ------
        SandboxError
            ``IMAGE_MISSING`` if there is no such image; none is ever fetched.
        """
        raise error("IMAGE_MISSING", f"The engine {self.name} has no images.", image=name)

    async def close(self) -> None:
        """Let go of connections and threads; runtimes go on. Called when the manager exits."""
        return
