"""At the start of a manager: removes what no record knows. What the records know, the actors adopt by themselves."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from ..engines.base import Engine
from ..errors import SandboxError
from .registry import Registry
from .services import Services

log = logging.getLogger(__name__)


def remove_stale_sockets(directory: Path, registry: Registry) -> None:
    """Remove the sockets of runtimes that no record knows; called while nothing can be started yet."""
    known = {actor.record.runtime.socket for actor in registry.all() if actor.record.runtime is not None}
    for path in directory.iterdir():
        if stat.S_ISSOCK(path.lstat().st_mode) and str(path) not in known:
            path.unlink()


async def remove_orphans(services: Services, registry: Registry) -> None:
    """Remove the engine objects of this installation that belong to no record.

    Records are written before and deleted after engine objects, so that whatever is found without one is left over.
    """
    for name in services.engines.names:
        try:
            await _remove_orphans_of(services.engines.get(name), services, registry)
        except SandboxError as exc:
            log.info("engine %s: orphans were not looked for: %s", name, exc)
        except Exception:  # An engine that cannot even be made here must not keep the others from being looked at.
            log.warning("engine %s: orphans could not be looked for", name, exc_info=True)


async def _remove_orphans_of(engine: Engine, services: Services, registry: Registry) -> None:
    found = await engine.find(services.records.installation)
    for lifetime in found - registry.lifetimes():
        log.warning("engine %s: %s belongs to no record and is removed", engine.name, lifetime)
        await engine.destroy(lifetime, services.directory / lifetime)
    await engine.tidy(services.records.installation)
