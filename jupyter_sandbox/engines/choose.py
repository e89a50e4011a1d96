"""The engines that there are, and which of them ``auto`` means on this machine (design section 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import SandboxError, error
from .base import UID_RANGE, Engine, Probe

PREFERENCE = ("docker", "bubblewrap")
"""The stronger isolation first."""


def available_engines(directory: Path, uid_range: tuple[int, int] = UID_RANGE) -> dict[str, Callable[[], Engine]]:
    """What makes each engine, by name; nothing is imported or tried until one is made.

    Parameters
    ----------
    directory:
        Where the agent's zipapp is built, if it is not there.
    uid_range:
        First and last uid for sandboxes that root starts with an engine that has no users of its own.
    """

    def docker() -> Engine:
        from . import agent_zip
        from .docker import DockerEngine

        return DockerEngine(agent_zip.build(directory))

    def bubblewrap() -> Engine:
        from . import agent_zip
        from .bubblewrap import BubblewrapEngine

        return BubblewrapEngine(agent_zip.build(directory), uid_range=uid_range)

    return {"docker": docker, "bubblewrap": bubblewrap}


async def choose(engines: Mapping[str, Engine]) -> str:
    """Probe ``engines`` in order of preference; return the name of the first that works.

    Raises
    ------
    Failed
        ``NO_ENGINE``, with what is wrong with each and what would mend it.
    """
    probes: dict[str, Probe] = {}
    for name in sorted(engines, key=_rank):
        probes[name] = await engines[name].probe()
        if probes[name].available:
            break
    return decide(probes)


def decide(probes: Mapping[str, Probe]) -> str:
    """The name of the most preferred engine whose probe says that it works; ``NO_ENGINE`` if none does."""
    for name in sorted(probes, key=_rank):
        if probes[name].available:
            return name
    raise _none(probes)


def _rank(name: str) -> tuple[int, str]:
    return (PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE), name)


def _none(probes: Mapping[str, Probe]) -> SandboxError:
    ordered = sorted(probes, key=_rank)
    reasons = " ".join(f"{name}: {probes[name].reason}" for name in ordered if probes[name].reason)
    remedies = [f"For {name}: {probes[name].remedy}" for name in ordered if probes[name].remedy]
    return error(
        "NO_ENGINE",
        f"No engine works on this machine. {reasons}".strip(),
        remedy=" ".join(remedies) or None,
        probes={name: probe.reason for name, probe in probes.items()},
    )
