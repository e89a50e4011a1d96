"""A manager killed between any two steps: the next one makes the sandbox work, keeps its files and orphans nothing."""

from __future__ import annotations

import os
import random
import signal
import threading
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
        assert world.look(sandbox_id)["state"] == "SANDBOX_NOT_FOUND"
        return
    if world.look(sandbox_id)["state"] == "SANDBOX_NOT_FOUND":
        world.create(sandbox_id)
    if operation == "restart":
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
    world.begin_again()
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


SOAK = bool(os.environ.get("JSBTEST_SOAK"))
"""Take the time to try everything."""
STRIDE = {
    "bubblewrap": {"create": 8, "restart": 8, "destroy": 11},
    "docker": {"create": 14, "restart": 12, "destroy": 9},
}
"""Of the many side effects of some operations every how manieth is tried, beginning anywhere; the others all are."""


@pytest.mark.parametrize("operation", STEPS)
def test_killed_before_any_side_effect_it_loses_nothing_and_leaves_nothing(
    world: World, operation: str, seed: int
) -> None:
    sandbox_id = world.new_id()
    stride = 1 if SOAK else STRIDE[world.engine].get(operation, 1)
    number = 1 + random.Random(f"{seed} {operation}").randrange(stride)
    while dies_before(number, world, operation, sandbox_id):
        recovers(world, operation, sandbox_id, f"manager killed before a side effect of {operation}")
        number += stride
    assert number > 1


def dies_before(number: int, world: World, operation: str, sandbox_id: str) -> bool:
    """Have the manager killed right before the side effect of that number; False if the operation has not so many."""
    prepare(world, operation, sandbox_id)
    world.begin_again(die_before=number)
    world.look(sandbox_id)  # it has been adopted now
    world.send(signal.SIGUSR2)
    with suppress(ManagerDied):
        perform(world, operation, sandbox_id)
        return False
    world.wait()
    return True


OPERATIONS = {"create": 0.4, "restart": 0.4, "freeze": 0.01, "thaw": 0.01, "destroy": 0.1}
"""What chance chooses from, and about how many seconds each takes."""
WEIGHTS = (1, 1, 5, 5, 1)
CHANCES = {"bubblewrap": 400, "docker": 80} if SOAK else {"bubblewrap": 50, "docker": 8}


def test_killed_at_any_moment_it_loses_nothing_and_leaves_nothing(world: World, seed: int) -> None:
    chance = random.Random(seed)
    sandbox_id = world.new_id()
    for operation in chance.choices(list(OPERATIONS), WEIGHTS, k=CHANCES[world.engine]):
        if operation == "create":
            world.destroy(sandbox_id)
        prepare(world, operation, sandbox_id)
        death = threading.Timer(chance.uniform(0, OPERATIONS[operation]), world.send, (signal.SIGKILL,))
        death.start()
        with suppress(ManagerDied):
            perform(world, operation, sandbox_id)
        death.join()
        recovers(world, operation, sandbox_id, "manager killed at a random moment")
