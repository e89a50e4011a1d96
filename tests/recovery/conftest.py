"""Worlds to break, and the count of how often each fault was survived."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .leftovers import assert_nothing_orphaned
from .world import World

SURVIVED: Counter[str] = Counter()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
        pytest.param("docker", marks=pytest.mark.docker),
    ],
)
def shared_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of each engine in turn, used by all tests of one file."""
    with tempfile.TemporaryDirectory(prefix="jsbr-", dir="/tmp") as name:
        world = World(request.param, Path(name))
        try:
            yield world
        finally:
            world.close()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """A world with a manager; after the test it has no sandboxes, and nothing of any is left."""
    shared_world.begin_again()
    before = dict(shared_world.faults)
    yield shared_world
    shared_world.begin_again()
    for row in shared_world.ask("GET", "/sandboxes")[1]["sandboxes"]:
        status, said = shared_world.destroy(row["id"])
        assert status == 204, said
    assert_nothing_orphaned(shared_world, empty=True)
    for fault, number in shared_world.faults.items():
        SURVIVED[f"{fault} ({shared_world.engine})"] += number - before.get(fault, 0)


@pytest.fixture(scope="session")
def seed() -> int:
    """What chance begins with: JSBTEST_SEED, else something new; printed with the counts."""
    SEED.append(int(os.environ.get("JSBTEST_SEED") or random.SystemRandom().randrange(10**6)))
    return SEED[0]


SEED: list[int] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How often each fault was survived."""
    if SURVIVED:
        terminalreporter.section(f"{sum(SURVIVED.values())} faults survived, JSBTEST_SEED={(*SEED, '')[0]}", sep="-")
        for fault, number in sorted(SURVIVED.items()):
            terminalreporter.write_line(f"{number:6} {fault}")
