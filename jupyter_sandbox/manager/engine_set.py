"""The engines of one manager by name, made when first needed, and the choice between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from ..engines.base import Engine
from ..errors import error
from .records import Records

Factory = Callable[[], Engine]
Chooser = Callable[[Mapping[str, Engine]], Awaitable[str]]

_DECISION = "engine"


class EngineSet:
    """The engines that this manager may use.

    Parameters
    ----------
    factories:
        What makes each engine.
    choose:
        Decides what ``auto`` is on this machine; called once per installation, because the answer is recorded.
    """

    def __init__(self, factories: Mapping[str, Factory], choose: Chooser, records: Records) -> None:
        self._factories = factories
        self._choose = choose
        self._records = records
        self._made: dict[str, Engine] = {}
        self._deciding = asyncio.Lock()

    def get(self, name: str) -> Engine:
        """The engine ``name``.

        Raises
        ------
        Unavailable
            ``ENGINE_UNAVAILABLE`` if this manager has none of that name.
        """
        if name not in self._factories:
            raise error("ENGINE_UNAVAILABLE", f"This machine has no engine {name!r}.", remedy="Install it first.")
        if name not in self._made:
            self._made[name] = self._factories[name]()
        return self._made[name]

    def with_images(self) -> Engine:
        """The engine that has images.

        Raises
        ------
        Unavailable
            ``ENGINE_UNAVAILABLE`` if none has.
        """
        for name in self._factories:
            if (engine := self.get(name)).default_image is not None:
                return engine
        raise error("ENGINE_UNAVAILABLE", "No engine of this machine has images.", remedy="")

    @property
    def names(self) -> list[str]:
        """The names of all engines."""
        return list(self._factories)

    async def decide(self, wanted: str) -> str:
        """The name of the engine for a new sandbox; ``auto`` is decided once per installation, then stays.

        Raises
        ------
        SandboxError
            ``NO_ENGINE`` if none works here, ``ENGINE_UNAVAILABLE`` if there is none of that name.
        """
        if wanted != "auto":
            self.get(wanted)
            return wanted
        async with self._deciding:
            decided = await self._records.get_meta(_DECISION)
            if decided is None:
                decided = await self._choose({name: self.get(name) for name in self._factories})
                await self._records.set_meta(_DECISION, decided)
            return decided

    async def close(self) -> None:
        """Let go of all engines; what runs goes on."""
        for engine in self._made.values():
            await engine.close()
