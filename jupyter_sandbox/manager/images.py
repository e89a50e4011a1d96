"""Which images may be used, and that a name always stands for the same image: pinned when it is first used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..engines.base import Engine
from ..errors import SandboxError, error
from .policy import Ceilings, denied
from .records import Records

ANY = "*"


class Images:
    """The allow-list and the pins of one installation.

    Parameters
    ----------
    listed:
        Images that may be used beside the default one, where a policy says nothing else.
    """

    def __init__(self, records: Records, listed: Iterable[str] = ()) -> None:
        self._records = records
        self._listed = tuple(listed)
        self._lock = asyncio.Lock()

    def choose(self, engine: Engine, asked: str | None, default: str | None, ceilings: Ceilings) -> str | None:
        """The name of the image of a new sandbox; None for an engine that has none.

        Parameters
        ----------
        asked, default:
            What the user gave, and what the configuration gives where he did not.

        Raises
        ------
        SandboxError
            ``POLICY_DENIED`` for an image that is not allowed, ``INVALID_OPTION`` where there are no images.
        """
        if engine.default_image is None:
            if asked is not None:
                raise _no_images(engine, asked)
            return None
        usual = default or engine.default_image
        allowed = ceilings.images or (usual, *self._listed)
        chosen = asked or (usual if _among(usual, allowed) else allowed[0])
        if not _among(chosen, allowed):
            raise _not_allowed(chosen, allowed)
        return chosen

    async def pin(self, engine: Engine, name: str) -> str:
        """The id of the content that ``name`` stands for, since it was first used.

        Raises
        ------
        SandboxError
            ``IMAGE_MISSING``; ``POLICY_DENIED`` if the name stands for another image by now.
        """
        found = await engine.image_id(name)
        async with self._lock:
            pinned = await self._records.get_meta(_key(engine, name))
            if pinned is None:
                await self._records.set_meta(_key(engine, name), found)
            elif pinned != found:
                raise _moved(name, pinned, found)
        return found

    async def accept(self, engine: Engine, name: str) -> str:
        """From now on ``name`` stands for the image that it names at present, whose id is returned."""
        found = await engine.image_id(name)
        async with self._lock:
            await self._records.set_meta(_key(engine, name), found)
        return found


def _key(engine: Engine, name: str) -> str:
    return f"image:{engine.name}:{_full(name)}"


def _full(name: str) -> str:
    """With its tag, where it has neither tag nor digest."""
    return name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"


def _among(name: str, allowed: Iterable[str]) -> bool:
    return any(one == ANY or _full(one) == _full(name) for one in allowed)


def _no_images(engine: Engine, asked: str) -> SandboxError:
    return error(
        "INVALID_OPTION",
        f"image={asked!r} is not possible: the engine {engine.name} has no images.",
        remedy="Leave `image` out, or choose an engine that has images.",
    )


def _not_allowed(name: str, allowed: tuple[str, ...]) -> SandboxError:
    names = ", ".join(map(repr, allowed))
    return denied(
        "image",
        name,
        allowed,
        f"image={name!r} is not allowed here, only {names}.",
        f"To allow it: `c.SandboxManager.images = [{name!r}]` in jupyter_sandbox_config.py, then restart the manager.",
    )


def _moved(name: str, pinned: str, found: str) -> SandboxError:
    return denied(
        "image",
        found,
        pinned,
        f"{name} was the image {_short(pinned)} when it was first used here, and is {_short(found)} now.",
        f"If that is meant: `jupyter sandbox trust {name}` in a terminal; sandboxes that exist keep what they have.",
    )


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]
