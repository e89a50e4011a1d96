"""A manager killed between any two steps: the next one makes the sandbox work, keeps its files and orphans nothing."""

from __future__ import annotations

from contextlib import suppress

import pytest

from .leftovers import assert_nothing_orphaned
from .world import ManagerDied, World

STEPS = {
    "create": ("create:recorded", "create:directory", "start:recorded", "start:engine", "start:done"),
    "restart": ("start:recorded", "start:engine", "start:done"),
    "freeze": ("freeze:engine", "freeze:done"),
    "thaw": ("thaw:engine", "thaw:done"),
    "stop": ("stop:engine", "stop:done"),
    "destroy": ("destroy:recorded", "destroy:engine"),
}
"""Every step that the manager reports, by the operation in which it is reached."""


def prepare(world: World, operation: str, sandbox_id: str) -> None:
    """Bring the sandbox into the state in which the operation begins."""
    if operation == "create":
        return
    if world.look(sandbox_id)["state"] == "SANDBOX_NOT_FOUND":
        world.create(sandbox_id)
    if operation in ("restart",):
        stop(world, sandbox_id)
    elif operation in ("thaw", "stop"):
        assert world.sleep(sandbox_id)[0] == 200
    else:
        assert world.put(sandbox_id)[0] == 200


def stop(world: World, sandbox_id: str) -> None:
    """Have a sleeping or running sandbox stopped, by its timer."""
    world.sleep(sandbox_id)
    world.set_options(sandbox_id, stop_after=0.01)
    world.until(sandbox_id, "stopped")


def perform(world: World, operation: str, sandbox_id: str) -> None:
    """The operation; whether its manager lives to answer is another question."""
    if operation in ("create", "restart", "thaw"):
        world.put(sandbox_id, stop_after="1h")
    elif operation == "freeze":
        world.sleep(sandbox_id)
    elif operation == "destroy":
        world.destroy(sandbox_id)
    else:
        stop(world, sandbox_id)


def recovers(world: World, operation: str, sandbox_id: str, fault: str) -> None:
    """After its death the next manager has everything in order."""
    world.kill()
    world.start()
    world.next_call(sandbox_id, files=operation not in ("create", "destroy"))
    assert_nothing_orphaned(world)
    if operation in ("create", "destroy"):
        assert world.destroy(sandbox_id)[0] == 204
    world.count(fault)


@pytest.mark.parametrize(("operation", "step"), [(name, step) for name, steps in STEPS.items() for step in steps])
def test_killed_at_a_step_it_loses_nothing_and_leaves_nothing(world: World, operation: str, step: str) -> None:
    sandbox_id = world.new_id()
    prepare(world, operation, sandbox_id)
    world.begin_again(die_at=step)
    with suppress(ManagerDied):
        perform(world, operation, sandbox_id)
    world.wait()
    recovers(world, operation, sandbox_id, "manager killed at a recorded step")
