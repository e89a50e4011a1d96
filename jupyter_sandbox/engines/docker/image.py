"""Whether an image is here and can run a sandbox, tried in a throw-away container of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound

from ...errors import SandboxError, error
from ...options import MIB
from . import container
from .daemon import Daemon, absent_is_fine, first_line
from .ending import NO_PYTHON

LABEL_VERSION = "org.jupyter.sandbox.version"
"""Set by our Dockerfile; an image that has it was tried when it was built."""

_log = logging.getLogger(__name__)

# What is wrong is told in bits of the exit code: the image's own output is nothing to rely on.
_BASE, _PYTHON, _IPYKERNEL, _HOME, _WORKSPACE = 64, 1, 2, 4, 8
_CHECK = f"""
import os, sys
from importlib.util import find_spec
bad = {_PYTHON} * (sys.version_info < (3, 9))
bad |= {_IPYKERNEL} * (find_spec("ipykernel") is None or find_spec("tornado") is None)
bad |= {_HOME} * (not os.access({container.HOME!r}, os.W_OK | os.X_OK))
bad |= {_WORKSPACE} * (not os.access({container.WORKSPACE!r}, os.W_OK | os.X_OK))
sys.exit({_BASE} + bad if bad else 0)
"""
_WRONG = {
    _PYTHON: "its python3 is older than 3.9",
    _IPYKERNEL: "its python3 has no ipykernel",
    _HOME: f"uid 1000 cannot write {container.HOME}",
    _WORKSPACE: f"uid 1000 cannot write {container.WORKSPACE}",
}
_CHECK_SECONDS = 30


class Images:
    """The images of one daemon, with what was found out about them."""

    def __init__(self, daemon: Daemon, default: str) -> None:
        self._daemon = daemon
        self.default = default
        self._good: set[str] = set()

    async def usable(self, name: str) -> Mapping[str, Any]:
        """The inspected image ``name``, which can run a sandbox.

        Raises
        ------
        SandboxError
            ``IMAGE_MISSING`` or ``IMAGE_NOT_USABLE``.
        """
        found = await self.find(name)
        if version_of(found) is None:
            await self.check(name, found)
        return found

    async def find(self, name: str) -> Mapping[str, Any]:
        """The inspected image ``name``; ``IMAGE_MISSING`` names the command that makes it. Never pulls."""
        try:
            found: Mapping[str, Any] = await self._daemon.call(lambda client: client.inspect_image(name))  # type: ignore[no-untyped-call]
        except (ImageNotFound, NotFound) as exc:
            raise self._missing(name) from exc
        except APIError as exc:
            raise error("IMAGE_MISSING", f"Docker does not take {name!r} for an image: {first_line(exc)}.") from exc
        return found

    def _missing(self, name: str) -> SandboxError:
        remedy = "Run `jupyter sandbox build` in a terminal."
        if name != self.default:
            remedy = f"Run `docker pull {name}`, or `jupyter sandbox build --tag {name}`, in a terminal."
        return error("IMAGE_MISSING", f"The image {name} is not on this machine.", remedy=remedy, image=name)

    async def check(self, name: str, found: Mapping[str, Any]) -> None:
        """Try the image in a container, once; ``IMAGE_NOT_USABLE`` says what it lacks."""
        if found["Id"] in self._good:
            return
        code = await self._daemon.call(lambda client: _run_check(client, found["Id"]))
        if code != 0:
            raise error("IMAGE_NOT_USABLE", f"The image {name} cannot run a sandbox: {_wrong(code)}.", image=name)
        self._good.add(found["Id"])


def version_of(found: Mapping[str, Any]) -> str | None:
    """The version of this package that built an image; None for an image of somebody else."""
    labels = (found.get("Config") or {}).get("Labels") or {}
    return str(labels[LABEL_VERSION]) if LABEL_VERSION in labels else None


def _wrong(code: int) -> str:
    if code in NO_PYTHON:
        return "it has no python3 that uid 1000 can run"
    texts = [text for bit, text in _WRONG.items() if (code - _BASE) & bit] if _BASE < code < _BASE + 16 else []
    return " and ".join(texts) or f"python3 in it ended with exit code {code}"


def _run_check(client: docker.APIClient, image: str) -> int:
    config = container.process(image, ["-I", "-c", _CHECK])
    config["HostConfig"] = {**container.host_config(), "Memory": 256 * MIB, "PidsLimit": 64}
    created = container.create(client, config)
    try:
        client.start(created)
        return int(client.wait(created, timeout=_CHECK_SECONDS)["StatusCode"])
    except APIError as exc:
        _log.debug("check of %s: %s", image, exc)
        return NO_PYTHON[1]
    finally:
        absent_is_fine(lambda: client.remove_container(created, force=True, v=True))
