"""The network of an installation's containers: a bridge of its own, closed to all that is not the internet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import docker
from docker.errors import APIError, NotFound

from ..network import addresses, bridge, probe, rules
from . import container
from .daemon import Daemon, absent_is_fine, first_line

_OPTIONS = {
    "com.docker.network.bridge.enable_icc": "false",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
}
_CLOSED_PORT = 9
"""Where nobody listens: whoever answers there with a refusal has been reached."""

_NEIGHBOURS = 4
"""How many other sandboxes the probe tries."""


class Networks:
    """The networks of installations on one daemon.

    Of one installation there is at most one: made with the first sandbox that has ``network="internet"``, removed
    with the last.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._lock = asyncio.Lock()
        self._writing = asyncio.Lock()  # of rules: two that looked at once would both put their jumps in front

    @asynccontextmanager
    async def prepared(self, installation: str) -> AsyncIterator[str]:
        """The network with its rules, which nobody removes meanwhile: time to make a container in it. Its id.

        Raises
        ------
        SandboxError
            ``NETWORK_UNAVAILABLE`` if it cannot be closed as it must be.
        """
        async with self._lock:
            # The rules first: there is no moment at which the bridge is open.
            await self._close(installation)
            yield await self._daemon.call(lambda client: _present(client, installation))

    async def guard(self, installation: str, handle: Mapping[str, Any]) -> None:
        """Close the network around the container that ``handle`` tells of, and prove it. Before user code runs."""
        await self.renew(installation)
        name = rules.bridge_of(installation)
        others = await self._daemon.call(lambda client: _neighbours(client, installation, handle["container"]))
        targets = [addresses.METADATA, *((one, _CLOSED_PORT) for one in addresses.host_addresses())]
        targets += [(one, _CLOSED_PORT) for one in (*addresses.link_local(name), *others[:_NEIGHBOURS])]
        open_ones = await asyncio.to_thread(probe.reached, handle["pid"], targets)
        if open_ones:
            listed = ", ".join(address for address, _ in open_ones)
            raise rules.unavailable(f"Out of the sandbox, addresses can be reached that must not be: {listed}.")

    async def renew(self, installation: str) -> None:
        """Make the rules as they must be: a restart of the daemon or of a firewall may have removed them."""
        await self._close(installation)
        await asyncio.to_thread(bridge.isolate_ports, rules.bridge_of(installation))

    async def _close(self, installation: str) -> None:
        async with self._writing:
            await asyncio.to_thread(rules.ensure, rules.bridge_of(installation), addresses.resolvers())

    async def release(self, installation: str) -> None:
        """Remove network and rules of an installation, unless a container still has them. Idempotent."""
        async with self._lock:
            if await self._daemon.call(lambda client: _removed(client, installation)):
                async with self._writing:
                    await asyncio.to_thread(rules.remove, rules.bridge_of(installation))


def network_name(installation: str) -> str:
    """The name of the network of an installation."""
    return f"jsb-{installation}"


def has_network(found: Mapping[str, Any], installation: str) -> bool:
    """Whether the inspected container ``found`` was made with the network of ``installation``."""
    return bool(found.get("HostConfig", {}).get("NetworkMode") == network_name(installation))


def reconnect(client: docker.APIClient, found: Mapping[str, Any], installation: str, network: str) -> None:
    """Put the stopped container ``found`` into ``network`` (an id) if it still refers to one that is gone."""
    name = network_name(installation)
    endpoint = (found["NetworkSettings"]["Networks"] or {}).get(name)
    if endpoint is not None and endpoint["NetworkID"] in ("", network):
        return
    if endpoint is not None:
        absent_is_fine(lambda: client.disconnect_container_from_network(found["Id"], name, force=True))
    client.connect_container_to_network(found["Id"], name)


def _present(client: docker.APIClient, installation: str) -> str:
    name = network_name(installation)
    try:
        found = client.inspect_network(name)
    except NotFound:
        found = _made(client, installation, name)
    labels = found.get("Labels") or {}
    if labels.get(container.LABEL_INSTALLATION) != installation:
        raise rules.unavailable(f"The Docker network {name} is not ours.", f"Remove it: `docker network rm {name}`.")
    return str(found["Id"])


def _made(client: docker.APIClient, installation: str, name: str) -> Mapping[str, Any]:
    options = {**_OPTIONS, "com.docker.network.bridge.name": rules.bridge_of(installation)}
    labels = {container.LABEL_INSTALLATION: installation}
    try:
        created: Mapping[str, Any] = client.create_network(
            name, driver="bridge", options=options, labels=labels, check_duplicate=True, enable_ipv6=False
        )
    except APIError as exc:
        raise rules.unavailable(f"Docker cannot make the network of the sandboxes: {first_line(exc)}.") from exc
    return {**created, "Labels": labels}


def _neighbours(client: docker.APIClient, installation: str, own: str) -> list[str]:
    """The addresses of the other containers in the network."""
    found = client.inspect_network(network_name(installation)).get("Containers") or {}
    others = [str(one.get("IPv4Address", "")) for container, one in found.items() if container != own]
    return [address.partition("/")[0] for address in others if address]


def _removed(client: docker.APIClient, installation: str) -> bool:
    """Remove the network unless a container, running or stopped, has it; whether it is gone."""
    name = network_name(installation)
    label = {"label": f"{container.LABEL_INSTALLATION}={installation}"}
    if any(one["HostConfig"]["NetworkMode"] == name for one in client.containers(all=True, filters=label)):
        return False
    absent_is_fine(lambda: client.remove_network(name))
    return True
