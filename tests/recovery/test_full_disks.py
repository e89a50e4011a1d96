"""Disks that are full: what cannot be done says so, and once there is room again everything goes on."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_sandbox.paths import machine_id

from .conftest import SURVIVED
from .leftovers import assert_nothing_orphaned
from .test_killed_managers import STEPS, perform, prepare
from .world import World, code_of

pytestmark = pytest.mark.root


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system of 24 MiB at ``path``."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "jsbtest", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(directory: Path) -> Path:
    """Leave not one byte; what is returned is to be removed again."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return ballast


@pytest.fixture(
    params=[
        pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
        pytest.param("docker", marks=pytest.mark.docker),
    ]
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world whose data directory is a small disk."""
    with tempfile.TemporaryDirectory(prefix="jsbr-", dir="/tmp") as name:
        with small_disk(Path(name, "d", "sandbox", machine_id())):
            world = World(request.param, Path(name))
            try:
                world.start()
                yield world
                assert_nothing_orphaned(world, empty=True)
            finally:
                world.close()
        SURVIVED.update({f"{fault} ({world.engine})": number for fault, number in world.faults.items()})


def test_while_the_records_cannot_be_written_every_operation_says_so_or_works(world: World) -> None:
    for operation in STEPS:
        sandbox_id = world.new_id()
        prepare(world, operation, sandbox_id)
        if operation == "stop":
            world.set_options(sandbox_id, stop_after=0.05)
        ballast = fill(world.data)
        if operation != "stop":
            perform(world, operation, sandbox_id)
        status, said = world.put(sandbox_id, labels={"long": "x" * 100_000})
        assert status != 200
        assert code_of(said) in ("LIMIT_REACHED", "START_FAILED"), said
        ballast.unlink()
        world.next_call(sandbox_id, files=operation not in ("create", "destroy"))
        assert_nothing_orphaned(world)
        assert world.destroy(sandbox_id)[0] == 204
        world.count("records' disk full")


@pytest.mark.parametrize("state", ["running", "sleeping", "stopped"])
def test_a_manager_killed_while_the_disk_is_full_finds_everything_later(world: World, state: str) -> None:
    sandbox_id = world.new_id()
    world.create(sandbox_id)
    if state == "sleeping":
        world.sleep(sandbox_id)
    if state == "stopped":
        world.set_options(sandbox_id, stop_after=0.01)
        world.sleep(sandbox_id)
        world.until(sandbox_id, "stopped")
    ballast = fill(world.data)
    world.kill()
    ready = world.start()
    assert ready is not None
    assert "socket" in ready or code_of(ready)
    ballast.unlink()
    world.begin_again()
    world.next_call(sandbox_id)
    assert_nothing_orphaned(world)
    assert world.destroy(sandbox_id)[0] == 204
    world.count("records' disk full, manager killed")


def test_a_sandbox_that_fills_its_disk_still_answers_and_goes_on_when_there_is_room(world: World) -> None:
    if world.engine == "docker":
        pytest.skip("the volumes of this machine's daemon cannot be given a small disk of their own")
    sandbox_id = world.new_id()
    world.create(sandbox_id)
    status, events = world.ask(
        "POST", f"{sandbox_id}/agent/exec", {"command": "head -c 100m /dev/zero > big; echo $?; cat kept"}
    )
    assert status == 200
    assert "".join(event.get("data", "") for event in events if event["event"] == "stdout") == f"1\n{sandbox_id}"
    status, said = world.ask("PUT", f"{sandbox_id}/agent/files?path=more", data=b"x" * 100_000)
    assert status >= 400
    assert code_of(said)
    assert world.ask("POST", f"{sandbox_id}/agent/exec", {"command": "rm big"})[0] == 200
    world.next_call(sandbox_id)
    assert world.destroy(sandbox_id)[0] == 204
    world.count("sandbox's disk full")
