"""Stands in for the internet: a network namespace with addresses of every kind, and a server at each of them."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from jupyter_sandbox.engines.base import Runtime
from jupyter_sandbox.engines.docker import DockerEngine
from jupyter_sandbox.engines.docker.network import network_name
from jupyter_sandbox.engines.network import rules

from ..engines.docker.conftest import Place, client, engine, installation, out, root

__all__ = ["client", "engine", "installation", "root"]

DNS = 53
PUBLIC = "198.51.100.2"
NOT_PUBLIC = ("10.213.99.2", "100.64.99.2", "169.254.99.2", "172.16.99.2", "192.168.213.2", "198.18.99.2")
"""Addresses that exist here, one hop away, and that a sandbox must not reach all the same."""

_HERE = "198.51.100.1"
_SERVE = """
import socket, sys
listening = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    with connection:
        connection.sendall(b"served")
"""

_TRY = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def what_happens(target):
    try:
        with socket.create_connection(target, timeout=3) as connection:
            return connection.recv(100).decode()
    except ConnectionRefusedError:
        return "refused"
    except OSError as exc:
        return f"unreachable: {exc}"
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(targets)) as threads:
    print(json.dumps(list(threads.map(what_happens, map(tuple, targets)))))
"""


@dataclass(frozen=True)
class World:
    """What is outside: the port at every address of the stand-in, and that of a server on this machine."""

    port: int
    port_here: int

    def beyond(self) -> list[tuple[str, int]]:
        """Servers that can be reached from this machine, and must not be from a sandbox."""
        return [*((address, self.port) for address in NOT_PUBLIC), (_HERE, self.port_here)]


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"this kernel has no network for the test: ip {' '.join(words)}: {done.stderr.strip()}")


def _serving(stack: ExitStack, *prefix: str, port: int = 0) -> int:
    process = subprocess.Popen([*prefix, sys.executable, "-c", _SERVE, str(port)], stdout=subprocess.PIPE, text=True)

    def end() -> None:
        process.kill()
        process.communicate()

    stack.callback(end)
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """The stand-in for the internet, on the other end of a wire."""
    if not shutil.which("ip"):
        pytest.skip("the program `ip` (Debian: iproute2) is not installed")
    name = f"jsbt{secrets.token_hex(4)}"
    wire, far = f"{name}a", f"{name}b"
    with ExitStack() as stack:
        ip("netns", "add", name)
        stack.callback(subprocess.run, ["ip", "netns", "delete", name], timeout=30)
        ip("link", "add", wire, "type", "veth", "peer", "name", far, "netns", name)
        ip("address", "add", f"{_HERE}/24", "dev", wire)
        ip("link", "set", wire, "up")
        ip("-n", name, "address", "add", f"{PUBLIC}/24", "dev", far)
        for device in ("lo", far):
            ip("-n", name, "link", "set", device, "up")
        ip("-n", name, "route", "add", "default", "via", _HERE)
        for address in NOT_PUBLIC:
            ip("-n", name, "address", "add", f"{address}/32", "dev", "lo")
            ip("route", "add", f"{address}/32", "via", PUBLIC)
        _serving(stack, "ip", "netns", "exec", name, port=DNS)
        yield World(_serving(stack, "ip", "netns", "exec", name), _serving(stack))


@pytest.fixture
async def places(
    engine: DockerEngine, installation: str, root: Path, client: docker.APIClient
) -> AsyncIterator[Callable[[], Place]]:
    """Makes lifetimes of one installation; once they are destroyed, neither network nor rules are left."""
    async with AsyncExitStack() as stack:

        def make() -> Place:
            place = Place(engine, root, installation)
            stack.push_async_callback(place.destroy)
            return place

        yield make
    left = [*client.networks(names=[network_name(installation)]), *mentions(rules.bridge_of(installation))]
    rules.remove(rules.bridge_of(installation))
    assert not left


def mentions(bridge: str) -> list[str]:
    """The lines of this machine's packet filters that name a bridge or its chains."""
    return [
        f"{tool}: {line}"
        for tool in ("iptables", "ip6tables")
        for line in subprocess.run([tool, "-w", "-S"], capture_output=True, text=True, timeout=30).stdout.splitlines()
        if bridge in line
    ]


def tried(runtime: Runtime, *targets: tuple[str, int]) -> list[str]:
    """What happens to a program inside that connects to each of ``targets``."""
    answers: Any = json.loads(out(runtime, f"python3 -c '{_TRY}' '{json.dumps(targets)}'"))
    return [str(answer) for answer in answers]


def serve_inside(runtime: Runtime) -> int:
    """Start a server inside; its port."""
    command = (
        f"python3 -c '{_SERVE}' 0 >/tmp/port 2>/dev/null & until [ -s /tmp/port ]; do sleep 0.05; done; cat /tmp/port"
    )
    return int(out(runtime, command))
