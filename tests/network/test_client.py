"""The network as a user asks for it: through the client, with a real manager and agent."""

from __future__ import annotations

import pytest

from jupyter_sandbox import get_sandbox
from jupyter_sandbox.errors import SandboxError

from .conftest import PUBLIC, World

FETCH = """
import socket
try:
    with socket.create_connection(({address!r}, {port}), timeout=20) as connection:
        print(connection.recv(100).decode())
except OSError as exc:
    print("not reached")
"""


@pytest.mark.docker
@pytest.mark.root
@pytest.mark.parametrize("engine_name", ["docker"], indirect=True)
def test_a_cell_reaches_the_internet_and_the_status_says_so(engine_name: str, world: World) -> None:
    sandbox = get_sandbox("online", network="internet")
    try:
        found = sandbox.run_code(FETCH.format(address=PUBLIC, port=world.port))
        assert "".join(found.logs.stdout).strip() == "served"
        assert sandbox.status().network == "internet"
        sandbox.sleep()
        near, port = world.beyond()[0]
        found = sandbox.run_code(FETCH.format(address=near, port=port))
        assert "".join(found.logs.stdout).strip() == "not reached"
    finally:
        sandbox.destroy()


@pytest.mark.bubblewrap
@pytest.mark.parametrize("engine_name", ["bubblewrap"], indirect=True)
def test_where_the_network_cannot_be_guarded_it_is_refused_and_nothing_stays(engine_name: str) -> None:
    sandbox = get_sandbox("online", network="internet")
    try:
        with pytest.raises(SandboxError) as caught:
            sandbox.run_code("1")
        assert caught.value.code == "NETWORK_UNAVAILABLE"
        assert "network='none'" in caught.value.remedy
    finally:
        sandbox.destroy()
