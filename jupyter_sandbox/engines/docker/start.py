"""One start of a lifetime's container, undone to the last trace when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound

from ...errors import SandboxError, error
from .. import handoff
from ..base import Progress, Runtime, StartSpec
from . import container, ending
from .daemon import Daemon, absent_is_fine, first_line
from .door import Door, came_from, door_path, remember
from .image import Images
from .isolation import isolation
from .network import Networks, network_name, reconnect

_LAST_WORDS = 1.0
"""Seconds between the end of a connection and the end of the container behind it, at most."""

_log = logging.getLogger(__name__)


class Start:
    """An attempt to start the runtime of ``spec``. :meth:`run` either returns it or leaves nothing behind.

    Parameters
    ----------
    agent:
        The agent's zipapp on the host.
    info:
        What ``docker info`` says.
    """

    def __init__(
        self,
        daemon: Daemon,
        images: Images,
        networks: Networks,
        agent: Path,
        spec: StartSpec,
        info: Mapping[str, Any],
    ) -> None:
        self._daemon = daemon
        self._images = images
        self._networks = networks
        self._agent = agent
        self._spec = spec
        self._info = info
        self._name = container.name(spec.lifetime)
        self._new_container = False
        self._new_volume = False

    async def run(self, progress: Progress) -> Runtime:
        """Start the container, new or kept, and hand its agent the listening socket."""
        progress("image")
        found = await ending.inspect(self._daemon, self._name)
        image = self._spec.image or self._images.default
        if found is None:
            await self._images.usable(image)
        elif found["Config"]["Labels"].get(container.LABEL_INSTALLATION) != self._spec.installation:
            raise error("START_FAILED", f"The container {self._name} belongs to other records.")
        progress("container")
        kept = container.door_of(found) if found is not None else None
        door = Door(kept or door_path(self._spec.sockets, self._spec.lifetime))
        try:
            return await self._run(door, image, found, progress)
        except BaseException as exc:
            await asyncio.shield(self._undo(door))
            if isinstance(exc, (APIError, OSError)):
                said = first_line(exc)
                raise error("START_FAILED", f"The container of the sandbox did not start: {said}") from exc
            raise
        finally:
            door.close()

    async def _run(self, door: Door, image: str, found: Mapping[str, Any] | None, progress: Progress) -> Runtime:
        remember(self._spec.directory, door.path)
        door.open(self._agent)
        async with self._network() as network:
            if found is None:
                await self._daemon.call(lambda client: self._create(client, image, door.path))
            else:
                await self._daemon.call(lambda client: self._reuse(client, found, network))
        accepting = asyncio.create_task(door.accept())
        try:
            handle = ending.handle_of(await self._daemon.call(self._launch))
            if network is not None:
                await self._networks.guard(self._spec.installation, handle)
                handle["network"] = self._spec.installation
            progress("agent")
            await self._connect(door, accepting, handle)
        finally:
            await _cancel(accepting)
        return Runtime(
            engine="docker",
            lifetime=self._spec.lifetime,
            runtime=self._spec.runtime,
            socket=str(door.agent_socket),
            handle=handle,
            isolation=isolation(self._info),
        )

    @contextlib.asynccontextmanager
    async def _network(self) -> AsyncIterator[str | None]:
        """The id of the network that the container gets; None if it gets none."""
        if self._spec.network == "none":
            yield None
            return
        async with self._networks.prepared(self._spec.installation) as network:
            yield network

    def _create(self, client: docker.APIClient, image: str, door: Path) -> None:
        spec = self._spec
        try:
            client.inspect_volume(self._name)
        except NotFound:
            self._new_volume = True
            client.create_volume(self._name, labels=container.labels(spec.installation, spec.lifetime))
        self._new_container = True
        network = network_name(spec.installation) if spec.network == "internet" else None
        config = container.configuration(spec, image, door, self._info["NCPU"], network)
        container.create(client, config, self._name)

    def _reuse(self, client: docker.APIClient, found: Mapping[str, Any], network: str | None) -> None:
        if found["State"]["Running"]:  # of a start that nobody recorded: its manager was killed
            client.kill(self._name)
            client.wait(self._name)
        wanted = container.changeable(self._spec.limits, self._info["NCPU"])
        if not container.has_limits(found, wanted):
            container.update(client, self._name, wanted)
        if network is not None:
            reconnect(client, found, self._spec.installation, network)

    def _launch(self, client: docker.APIClient) -> Mapping[str, Any]:
        client.start(self._name)
        found: Mapping[str, Any] = client.inspect_container(self._name)
        return found

    async def _connect(self, door: Door, accepting: asyncio.Task[socket.socket], handle: Mapping[str, Any]) -> None:
        """Hand over to the agent that knocks, unless its container ends before it is ready."""
        handing = asyncio.create_task(self._hand_over(door, accepting, handle["container"]))
        dying = asyncio.create_task(ending.until_ended(self._daemon, handle))
        try:
            await asyncio.wait({handing, dying}, return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                # Its answer, or the end of the connection, comes first or is on its way.
                await asyncio.wait({handing}, timeout=_LAST_WORDS)
            if not handing.done():
                dying.result()
                raise await ending.why_not_ready(self._daemon, handle)
            await self._explained(handing, dying, handle)
        finally:
            await _cancel(handing)
            await _cancel(dying)

    async def _explained(
        self, handing: asyncio.Task[None], dying: asyncio.Task[None], handle: Mapping[str, Any]
    ) -> None:
        try:
            await handing
        except SandboxError as exc:
            if exc.code != "START_FAILED":
                raise
            # The connection ends a moment before the container does, and only that one says why.
            await asyncio.wait({dying}, timeout=_LAST_WORDS)
            if dying.done():
                raise await ending.why_not_ready(self._daemon, handle) from exc
            raise

    async def _hand_over(self, door: Door, accepting: asyncio.Task[socket.socket], container_id: str) -> None:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(await accepting)
            if not came_from(connection, container_id):
                raise error("START_FAILED", "Another process than the sandbox's took its hand-off socket.")
            listening = stack.enter_context(handoff.listener(door.agent_socket))
            await handoff.handoff_over(connection, listening, self._spec.handoff, self._spec.timeout)

    async def _undo(self, door: Door) -> None:
        try:
            await self._daemon.call(self._remove_new)
            if self._spec.network == "internet":
                await self._networks.release(self._spec.installation)
        except (SandboxError, DockerException):
            _log.exception("the failed start of %s could not be undone", self._name)
        door.close()
        handoff.remove(door.agent_socket)
        if self._new_container:
            with contextlib.suppress(OSError):
                door.remove()

    def _remove_new(self, client: docker.APIClient) -> None:
        if self._new_container:
            absent_is_fine(lambda: client.remove_container(self._name, force=True, v=True))
        else:
            halt(client, self._name)
        if self._new_volume:
            absent_is_fine(lambda: client.remove_volume(self._name))


def halt(client: docker.APIClient, name: str) -> None:
    """End a container at once, if it is there and runs, frozen or not."""
    try:
        client.kill(name)
        client.wait(name)
    except NotFound:
        return
    except APIError as exc:
        if exc.status_code != 409:  # 409: it does not run
            raise


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # marks it as seen
