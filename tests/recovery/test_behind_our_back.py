"""What others do to a sandbox: the next call works or says what happened, its files are there, nothing is orphaned."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jupyter_sandbox import get_sandbox

from .leftovers import assert_nothing_orphaned
from .world import World

STATES = ("running", "sleeping")


def sandbox_that_is(world: World, state: str) -> str:
    """The ID of a new sandbox in that state."""
    sandbox_id = world.new_id()
    world.create(sandbox_id)
    if state == "sleeping":
        assert world.sleep(sandbox_id)[0] == 200
    return sandbox_id


def survives(world: World, sandbox_id: str, fault: str, *, files: bool = True) -> None:
    """The next call works or says what happened."""
    world.next_call(sandbox_id, files=files)
    assert_nothing_orphaned(world)
    world.count(fault)


def runtime_of(world: World, sandbox_id: str) -> dict[str, Any]:
    """What the engine remembers of its runtime."""
    return next(body["runtime"]["handle"] for body in world.known().values() if body["id"] == sandbox_id)


def agent_of(world: World, sandbox_id: str) -> int:
    """The process of the host that is the agent (under Docker: its parent, the container's init)."""
    handle = runtime_of(world, sandbox_id)
    return int(handle["pid"] if world.engine == "docker" else handle["init"]["pid"])


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_agent_is_killed(world: World, state: str, number: int) -> None:
    sandbox_id = sandbox_that_is(world, state)
    os.kill(agent_of(world, sandbox_id), number)
    survives(world, sandbox_id, "agent killed")
    assert world.look(sandbox_id)["previous_end"] or number == signal.SIGTERM


@pytest.mark.parametrize("state", STATES)
def test_the_agent_is_killed_while_no_manager_runs(world: World, state: str) -> None:
    sandbox_id = sandbox_that_is(world, state)
    world.kill()
    os.kill(agent_of(world, sandbox_id), signal.SIGKILL)
    world.start()
    survives(world, sandbox_id, "agent killed while no manager ran")


@pytest.mark.parametrize("shared_world", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("command", "alone"),
    [
        *((command, False) for command in ("rm -f", "kill", "pause", "restart -t 0")),
        *((command, True) for command in ("rm -f", "kill", "pause")),
    ],
)
def test_docker_is_used_behind_our_back_or_while_no_manager_runs(
    world: World, state: str, command: str, alone: bool
) -> None:
    sandbox_id = sandbox_that_is(world, state)
    if alone:
        world.kill()
    container = runtime_of(world, sandbox_id)["container"]
    subprocess.run(["docker", *command.split(), container], capture_output=True, timeout=60)
    if alone:
        world.start()
    survives(world, sandbox_id, f"docker {command.split()[0]}")


@pytest.mark.parametrize("state", STATES)
def test_the_directory_of_sockets_is_removed_and_the_manager_killed(world: World, state: str) -> None:
    sandbox_id = sandbox_that_is(world, state)
    world.kill()
    shutil.rmtree(world.place / "r")
    (world.place / "r").mkdir(mode=0o700)
    world.start()
    survives(world, sandbox_id, "directory of sockets removed")


@pytest.mark.parametrize("state", STATES)
def test_the_machine_is_booted_again(world: World, state: str) -> None:
    sandbox_id = sandbox_that_is(world, state)
    world.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent_of(world, sandbox_id), signal.SIGKILL)
    shutil.rmtree(world.place / "r")
    (world.place / "r").mkdir(mode=0o700)
    world.start(boot="another")
    assert world.until(sandbox_id, "stopped")["previous_end"]
    survives(world, sandbox_id, "machine booted again")


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_is_moved(world: World, hours: int) -> None:
    sandbox_id = sandbox_that_is(world, "running")
    world.set_options(sandbox_id, sleep_after="10m", stop_after="10m")
    before = world.look(sandbox_id)["runtime"]
    world.begin_again(clock=3600 * hours)
    assert world.look(sandbox_id)["state"] == "running"
    world.next_call(sandbox_id)
    sleeps_at = datetime.fromisoformat(world.look(sandbox_id)["sleeps_at"])
    wrong = datetime.now(UTC) + timedelta(hours=hours)
    assert timedelta(minutes=8) < sleeps_at - wrong < timedelta(minutes=11)
    assert world.sleep(sandbox_id)[0] == 200
    world.begin_again(clock=-3600 * hours)
    assert world.look(sandbox_id)["state"] == "sleeping"
    survives(world, sandbox_id, "clock moved an hour")
    assert world.look(sandbox_id)["runtime"] == before


@pytest.mark.parametrize(("state", "what"), [("running", "all of it"), ("sleeping", "the sockets")])
def test_the_directory_of_sockets_is_removed_under_a_manager(
    engine_name: str, environment: Any, state: str, what: str
) -> None:
    with get_sandbox("a") as sandbox:
        sandbox.write_file("kept", "here")
        if state == "sleeping":
            sandbox.sleep()
    manager = environment.manager_pid
    (directory,) = (environment.root / "r").glob("jsb-*")
    if what == "all of it":
        shutil.rmtree(directory)
    else:
        for path in directory.glob("*.sock"):
            path.unlink()
    with get_sandbox("a") as sandbox:
        assert sandbox.read_file("kept") == "here"
        assert sandbox.exec("echo x").stdout == "x\n"
    assert environment.manager_pid == manager
