"""What an administrator or a user may set for a manager, and where it is read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

from jupyter_core.paths import jupyter_config_path
from traitlets import Callable, Dict, Enum, Float, Int, List, TraitError, Tuple, Unicode, Union, validate
from traitlets.config import Config, Configurable
from traitlets.config.loader import ConfigFileNotFound, PyFileConfigLoader
from traitlets.utils.importstring import import_item

from ..engines.base import UID_RANGE
from ..errors import SandboxError, error
from ..options import EngineName, Network, SandboxOptions, parse_size
from .memory_pressure import default_reserve
from .policy import Rule, no_ceilings

FILE_NAME = "jupyter_sandbox_config.py"


class SandboxManager(Configurable):
    """The settings of the manager; those named like an option are what applies where nobody gave that option."""

    idle_exit = Float(
        60.0, min=0.1, help="Seconds without sandboxes in memory and without clients before it exits."
    ).tag(config=True)
    engine = Enum(
        list(get_args(EngineName)), default_value=None, allow_none=True, help="The engine of new sandboxes."
    ).tag(config=True)
    image = Unicode(None, allow_none=True, help="The image of new sandboxes, for engines that have images.").tag(
        config=True
    )
    network = Enum(list(get_args(Network)), default_value=None, allow_none=True, help="The network of sandboxes.").tag(
        config=True
    )
    sleep_after = Union(
        [Unicode(), Float()], default_value=None, allow_none=True, help="Time without work before a sandbox sleeps."
    ).tag(config=True)
    stop_after = Union(
        [Unicode(), Float()],
        default_value=None,
        allow_none=True,
        help="Time asleep before it is stopped; files stay.",
    ).tag(config=True)
    max_busy = Union(
        [Unicode(), Float()], default_value=None, allow_none=True, help="Time that something running keeps it awake."
    ).tag(config=True)
    limits = Dict(help="Limits of sandboxes: cpus, memory, pids, disk.").tag(config=True)
    container_timeouts = Dict(help="How long the steps of a start may take, in milliseconds.").tag(config=True)
    memory_reserve = Union(
        [Int(min=0), Unicode()],
        default_value=None,
        allow_none=True,
        help=(
            "Memory of this machine (bytes, or '512m', '2g') that is to be available when a sandbox starts or wakes. "
            "Where less is, sleeping sandboxes are stopped first, the longest asleep before others; those with "
            "keep_alive never are. 0: never for want of memory. Default: a tenth of the memory, at most 1 GiB."
        ),
    ).tag(config=True)
    uid_range = Tuple(
        Int(min=1),
        Int(min=1),
        default_value=UID_RANGE,
        help="First and last uid that a manager run by root gives to sandboxes; no process of the host may have one.",
    ).tag(config=True)

    images = List(
        Unicode(),
        help=(
            "Images that may be used beside the default one, for engines that have images; '*' stands for any. A name "
            "stands for the image that it named when it was first used; `jupyter sandbox trust NAME` renews that."
        ),
    ).tag(config=True)
    policy = Union(
        [Callable(), Unicode()],
        default_value=no_ceilings,
        help=(
            "A function, or its dotted name: given a principal (owner, actor, groups), it returns the ceilings on that "
            "principal's options, as a dict or as jupyter_sandbox.manager.policy.Ceilings. Default: no ceilings."
        ),
    ).tag(config=True)

    @validate("policy")
    def _importable(self, proposal: Any) -> Any:
        rule = proposal["value"]
        if not isinstance(rule, str):
            return rule
        try:
            found = import_item(rule)
        except Exception as exc:  # Importing runs a program of the administrator's: whatever it raises is told.
            raise TraitError(f"policy={rule!r} cannot be imported: {exc}") from exc
        if not callable(found):
            raise TraitError(f"policy={rule!r} is not a function.")
        return found

    @validate("uid_range")
    def _ordered(self, proposal: Any) -> tuple[int, int]:
        first, last = proposal["value"]
        if first > last:
            raise TraitError(f"uid_range={proposal['value']} ends before it begins.")
        return first, last

    @validate("memory_reserve")
    def _size(self, proposal: Any) -> Any:
        try:
            return parse_size(proposal["value"], "memory_reserve")
        except SandboxError as exc:
            raise TraitError(str(exc)) from exc

    def rule(self) -> Rule:
        """What gives the ceilings of a principal."""
        return cast("Rule", self.policy)

    def reserve(self) -> int:
        """Bytes of memory that are to be available when a sandbox starts or wakes."""
        return default_reserve() if self.memory_reserve is None else int(self.memory_reserve)

    def options(self) -> SandboxOptions:
        """The layer of options that this configuration gives.

        Raises
        ------
        InvalidInput
            A value breaks the rule of its option.
        """
        names = ("engine", "image", "network", "sleep_after", "stop_after", "max_busy")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return SandboxOptions.from_json({**given, "limits": self.limits, "container_timeouts": self.container_timeouts})


def load() -> SandboxManager:
    """Read ``jupyter_sandbox_config.py`` from Jupyter's configuration directories, the user's last.

    It is never read from the working directory: whoever can write there would run code in the manager.

    Raises
    ------
    InvalidInput
        ``INVALID_OPTION`` if a file cannot be run, or a value is not allowed.
    """
    config = Config()
    for directory in reversed(jupyter_config_path()):
        config.merge(_read(Path(directory)))
    try:
        manager = SandboxManager(config=config)
        manager.options()
    except (TraitError, SandboxError) as exc:
        raise error("INVALID_OPTION", f"{FILE_NAME}: {exc}", remedy="Correct the configuration.") from exc
    return manager


def _read(directory: Path) -> Any:
    if not directory.is_absolute():
        return {}
    try:
        return PyFileConfigLoader(FILE_NAME, path=str(directory)).load_config()
    except ConfigFileNotFound:
        return {}
    except Exception as exc:  # The file is a program of the user's: whatever it raises is told with its name.
        raise error(
            "INVALID_OPTION", f"{directory / FILE_NAME} cannot be read: {exc}", remedy="Correct the configuration."
        ) from exc
