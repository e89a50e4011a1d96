"""The documentation says what the tests prove."""

from __future__ import annotations

from .probe import Held
from .table import GROUPS, PAGE, written
from .weakened import BUBBLEWRAP, DOCKER


def test_the_table_of_the_documentation_is_that_of_the_probes() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run `python -m tests.isolation.table`"


def test_every_protection_that_a_control_can_take_away_holds_against_something() -> None:
    for engine, known in {"bubblewrap": BUBBLEWRAP, "docker": DOCKER}.items():
        each = [probe.at(engine) for probes in GROUPS.values() for probe in probes]
        used = {layer for found in each if isinstance(found, Held) for layer in found.by}
        assert known.keys() - used == set()


def test_names_of_probes_are_unique() -> None:
    names = [probe.name for probes in GROUPS.values() for probe in probes]
    assert len(names) == len(set(names))
