"""The tasks of one sandbox's own: what is begun runs to its end, also when the caller who began it goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..errors import SandboxError

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class OwnTasks:
    """Tasks that belong to one sandbox.

    Parameters
    ----------
    name:
        Of the lifetime, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Begin ``work``."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` to its end even if the caller goes away."""
        return await asyncio.shield(self.spawn(work))

    def cancel_all(self) -> None:
        """End all of them where they are; only for a manager that lets go."""
        for task in list(self._tasks):
            task.cancel()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None and not isinstance(exc, SandboxError):
            log.error("%s: a step failed", self._name, exc_info=exc)
