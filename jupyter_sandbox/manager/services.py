"""What all sandboxes of one manager share: records, engines, events, directories and defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..options import ResolvedOptions, SandboxOptions, resolve
from .engine_set import EngineSet
from .events import Events
from .images import Images
from .memory_pressure import MemoryPressure
from .policy import Policy, lower
from .principals import Principals
from .records import Records, SandboxRecord


def nothing_happens(step: str) -> None:
    """The production's answer to "this step is reached"; tests of recovery die there instead."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """Shared by all sandboxes of one manager.

    Parameters
    ----------
    owner:
        Who all sandboxes of a personal manager belong to (``os:<user>``).
    directory:
        Where each lifetime has a directory of its own (0700).
    sockets:
        The private directory with a short path.
    defaults:
        The layer of options that the manager's configuration gives.
    memory:
        Sees to it that a start finds memory.
    principals:
        Who asks, for each call.
    images, policy:
        What may be used, and how much of it.
    reached:
        Called between any two steps that must survive a SIGKILL, with the name of the step just done.
    """

    owner: str
    records: Records
    engines: EngineSet
    events: Events
    directory: Path
    sockets: Path
    defaults: SandboxOptions
    memory: MemoryPressure
    principals: Principals
    images: Images
    policy: Policy = field(default_factory=Policy)
    reached: Callable[[str], None] = nothing_happens

    def options_of(self, record: SandboxRecord, *layers: SandboxOptions) -> ResolvedOptions:
        """The values that apply to a sandbox: of what is kept with it, ``layers``, the configuration, the defaults.

        None is above its ceiling: what was stored before a policy became stricter is lowered, like a default.
        """
        return lower(resolve(record.options, *layers, self.defaults), self.policy(record.principal))
