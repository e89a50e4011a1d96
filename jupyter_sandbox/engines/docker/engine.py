"""The Docker engine's face to the manager (see :class:`jupyter_sandbox.engines.base.Engine`)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import docker
from docker.errors import APIError, NotFound

from ... import __version__
from ...errors import SandboxError, error
from ...models import Usage
from ...options import ResolvedLimits
from .. import handoff
from ..base import Ending, Engine, Probe, Progress, Runtime, StartSpec
from . import cgroup, container, ending
from .daemon import Daemon, absent_is_fine, first_line, whole_seconds
from .door import Door, remembered
from .image import Images, version_of
from .isolation import isolation
from .network import Networks, has_network
from .start import Start, halt

DEFAULT_IMAGE = f"jupyter-sandbox:{__version__}"
"""The image that ``jupyter sandbox build`` makes, and the one of a sandbox that names none."""

_T = TypeVar("_T")


class DockerEngine(Engine):
    """Sandboxes as containers of a Docker daemon on this machine.

    A lifetime keeps one container over stops and starts, so that home and ``/tmp`` (its writable layer) and
    ``/workspace`` (its volume) stay.

    Parameters
    ----------
    agent:
        The agent's zipapp, copied for the container at every start.
    default_image:
        For sandboxes that name no image.
    host:
        As in ``DOCKER_HOST``. Default: what the docker CLI would use.
    """

    name: ClassVar[str] = "docker"

    def __init__(self, agent: Path, *, default_image: str = DEFAULT_IMAGE, host: str | None = None) -> None:
        self.default_image = default_image
        self._agent = agent
        self._daemon = Daemon(host)
        self._images = Images(self._daemon, default_image)
        self._networks = Networks(self._daemon)

    async def probe(self) -> Probe:
        """Whether the daemon answers, shares our kernel, and the default image runs."""
        try:
            info = await self._daemon.info(fresh=True)
            found = await self._images.find(self._images.default)
            await self._images.check(self._images.default, found)
        except SandboxError as exc:
            return Probe(False, exc.message, exc.remedy, facts={"code": exc.code, "host": self._daemon.host})
        facts = {"host": self._daemon.host, "version": info.get("ServerVersion"), "image": self._images.default}
        facts |= {"image_created": found.get("Created"), "image_version": version_of(found)}
        return Probe(True, isolation=isolation(info), facts=facts)

    async def start(self, spec: StartSpec, progress: Progress) -> Runtime:
        """See :meth:`Engine.start`."""
        try:
            async with asyncio.timeout(spec.timeout):
                info = await self._daemon.info()
                return await Start(self._daemon, self._images, self._networks, self._agent, spec, info).run(progress)
        except TimeoutError as exc:
            raise error("START_TIMEOUT", f"The sandbox was not ready within {spec.timeout:g} seconds.") from exc

    async def is_alive(self, runtime: Runtime) -> bool:
        """See :meth:`Engine.is_alive`."""
        return await ending.is_running(self._daemon, runtime.handle)

    async def wait(self, runtime: Runtime) -> Ending:
        """See :meth:`Engine.wait`."""
        await ending.until_ended(self._daemon, runtime.handle)
        return await ending.why(self._daemon, runtime.handle)

    async def freeze(self, runtime: Runtime) -> None:
        """``docker pause``, so that ``docker ps`` tells the truth."""
        await self._switch(runtime, lambda client, name: client.pause(name), paused=True)

    async def thaw(self, runtime: Runtime) -> None:
        """``docker unpause``, after the rules around its network were made anew."""
        if installation := runtime.handle.get("network"):
            await self._networks.renew(installation)
        await self._switch(runtime, lambda client, name: client.unpause(name), paused=False)

    async def _switch(self, runtime: Runtime, act: Callable[[docker.APIClient, str], Any], *, paused: bool) -> None:
        def work(client: docker.APIClient) -> None:
            try:
                act(client, name)
            except APIError as exc:
                # It may be as wanted already: by us, or by somebody with `docker pause`.
                state = client.inspect_container(name)["State"]
                if not (state["Running"] and state["Paused"] is paused):
                    raise exc

        name = runtime.handle["container"]
        await self._of(runtime, work)

    async def stop(self, runtime: Runtime, grace: float) -> None:
        """SIGTERM to the agent, and after ``grace`` SIGKILL to all; the container and its files stay."""

        def work(client: docker.APIClient) -> None:
            found = client.inspect_container(runtime.handle["container"])
            if not ending.is_same(found, runtime.handle):
                return
            if found["State"]["Paused"]:
                client.unpause(found["Id"])
            client.stop(found["Id"], timeout=whole_seconds(grace))

        try:
            await self._daemon.call(work)
        except NotFound:
            pass
        except APIError as exc:
            raise error("INTERNAL", f"Docker could not stop the sandbox: {first_line(exc)}.") from exc
        handoff.remove(Path(runtime.socket))

    async def destroy(self, lifetime: str, directory: Path) -> None:
        """Remove container, volume, hand-off directory and ``directory``.

        The container goes after its hand-off directory, and the volume last: whatever is left when this is
        cut short is still found by :meth:`find`, and by the next destroy.
        """
        name = container.name(lifetime)
        found = await ending.inspect(self._daemon, name)
        installation = await self._daemon.call(lambda client: _installation(client, found, name))
        await self._daemon.call(lambda client: halt(client, name))
        for path in (remembered(directory), container.door_of(found or {})):
            if path is not None:
                Door(path).remove()
        await self._daemon.call(lambda client: _remove(client, name))
        await asyncio.to_thread(_remove_tree, directory)
        if installation is not None and (found is None or has_network(found, installation)):
            await self._networks.release(installation)

    async def tidy(self, installation: str) -> None:
        """See :meth:`Engine.tidy`: the network and the rules around it."""
        await self._networks.release(installation)

    async def usage(self, runtime: Runtime) -> Usage:
        """From the kernel's own files, else from the daemon's statistics. Disk use is not measured."""
        if not await self.is_alive(runtime):
            return Usage()
        measured = cgroup.usage(runtime.handle["pid"])
        if measured is not None:
            return measured
        return await self._of(runtime, lambda client: _statistics(client, runtime.handle["container"]))

    async def set_limits(self, runtime: Runtime, limits: ResolvedLimits) -> None:
        """See :meth:`Engine.set_limits`. Disk is not limited here."""
        info = await self._daemon.info()
        wanted = container.changeable(limits, info["NCPU"])
        await self._of(runtime, lambda client: container.update(client, runtime.handle["container"], wanted))

    async def find(self, installation: str) -> set[str]:
        """See :meth:`Engine.find`."""
        wanted = {"label": f"{container.LABEL_INSTALLATION}={installation}"}

        def work(client: docker.APIClient) -> set[str]:
            found = [*client.containers(all=True, filters=wanted), *(client.volumes(wanted)["Volumes"] or ())]
            lifetimes = {(item["Labels"] or {}).get(container.LABEL_LIFETIME) for item in found}
            return {lifetime for lifetime in lifetimes if lifetime}

        return await self._daemon.call(work)

    async def image_id(self, name: str) -> str:
        """The image's own digest: that of its configuration, which names its layers."""
        return str((await self._images.find(name))["Id"])

    async def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._daemon.close()

    async def _of(self, runtime: Runtime, work: Callable[[docker.APIClient], _T]) -> _T:
        """A call that needs ``runtime`` to be there."""
        try:
            return await self._daemon.call(work)
        except NotFound as exc:
            raise error("AGENT_UNREACHABLE", "The sandbox's container is gone.") from exc
        except APIError as exc:
            if not await self.is_alive(runtime):
                raise error("AGENT_UNREACHABLE", "The sandbox's container does not run any more.") from exc
            raise error("INTERNAL", f"Docker refused: {first_line(exc)}.") from exc


def _remove(client: docker.APIClient, name: str) -> None:
    absent_is_fine(lambda: client.remove_container(name, force=True, v=True))
    absent_is_fine(lambda: client.remove_volume(name))


def _installation(client: docker.APIClient, found: Mapping[str, Any] | None, name: str) -> str | None:
    """Whose records a lifetime belongs to: what its container, else its volume, is labelled with."""
    if found is not None:
        labels = found["Config"]["Labels"]
    else:
        try:
            labels = client.inspect_volume(name)["Labels"]
        except NotFound:
            return None
    return (labels or {}).get(container.LABEL_INSTALLATION)


def _remove_tree(directory: Path) -> None:
    if directory.is_dir():
        shutil.rmtree(directory)


def _statistics(client: docker.APIClient, name: str) -> Usage:
    found: Mapping[str, Any] = client.stats(name, stream=False, one_shot=True)
    nanoseconds = found.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage")
    return Usage(
        cpu_seconds=nanoseconds / 1e9 if nanoseconds is not None else None,
        memory=found.get("memory_stats", {}).get("usage"),
        pids=found.get("pids_stats", {}).get("current"),
    )
