"""A Docker daemon that is stopped, restarted or frozen: what runs goes on, what needs it says so, nothing is lost."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import SURVIVED
from .daemon_door import REAL, DaemonDoor
from .leftovers import assert_nothing_orphaned
from .world import World, code_of

pytestmark = pytest.mark.docker


@pytest.fixture
def door() -> Iterator[DaemonDoor]:
    """The way to the daemon."""
    with tempfile.TemporaryDirectory(prefix="jsbr-", dir="/tmp") as name:
        door = DaemonDoor(Path(name, "docker.sock"))
        yield door
        door.stop()


@pytest.fixture
def world(door: DaemonDoor) -> Iterator[World]:
    """A world that reaches its daemon through the door."""
    if not Path(REAL).exists():
        pytest.skip(f"the daemon of this machine does not listen on {REAL}")
    with tempfile.TemporaryDirectory(prefix="jsbr-", dir="/tmp") as name:
        world = World("docker", Path(name), DOCKER_HOST=f"unix://{door.path}")
        try:
            world.start(patience=2)
            yield world
            assert_nothing_orphaned(world, empty=True)
        finally:
            world.close()
        SURVIVED.update({f"{fault} ({world.engine})": number for fault, number in world.faults.items()})


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
@pytest.mark.parametrize("restarted", [False, True], ids=["the manager stays", "the manager is killed"])
def test_without_its_daemon_a_sandbox_runs_on_and_the_rest_says_so(
    world: World, door: DaemonDoor, fault: str, restarted: bool
) -> None:
    for sandbox_id in ("running", "sleeping"):
        world.create(sandbox_id)
    assert world.sleep("sleeping")[0] == 200
    door.stop() if fault == "stopped" else door.freeze()
    if restarted:
        world.begin_again(patience=2)
    assert world.read("running")[0] in ((200, 503) if restarted else (200,))
    for status, said in (world.put("sleeping"), world.put("new"), world.destroy("sleeping")):
        assert (status, code_of(said)) == (503, "ENGINE_UNAVAILABLE")
    door.open()
    for sandbox_id in ("running", "sleeping"):
        # A destroy that was begun is finished by the next call, which then makes a new sandbox.
        world.next_call(sandbox_id, files=sandbox_id == "running")
    assert_nothing_orphaned(world)
    for sandbox_id in ("running", "sleeping", "new"):
        assert world.destroy(sandbox_id)[0] == 204
    world.count(f"daemon {fault}")


def test_a_daemon_that_is_restarted_takes_its_containers_with_it(world: World, door: DaemonDoor) -> None:
    for sandbox_id in ("running", "sleeping"):
        world.create(sandbox_id)
    assert world.sleep("sleeping")[0] == 200
    containers = [body["runtime"]["handle"]["container"] for body in world.known().values()]
    door.stop()
    subprocess.run(["docker", "kill", *containers], capture_output=True, timeout=60, check=True)
    door.open()
    for sandbox_id in ("running", "sleeping"):
        world.next_call(sandbox_id)
    assert_nothing_orphaned(world)
    for sandbox_id in ("running", "sleeping"):
        assert world.destroy(sandbox_id)[0] == 204
    world.count("daemon restarted")
