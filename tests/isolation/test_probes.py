"""Nobody inside can do what is forbidden; and it is our protection, not luck, that forbids it.

Every probe is tried in a sandbox as it is, in one without all of the layers that hold against the act, where it must
succeed, and in one without all but one of them, where it must fail: so each layer is proven to hold alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .probe import OUTSIDE, Held, Open, Probe
from .probes import host, kernel, neighbours, privileges
from .sandboxes import SECRET, Sandboxes
from .weakened import HOST_VARIABLE

GROUPS = {"privileges": privileges, "kernel": kernel, "host": host, "neighbours": neighbours}
SETTING = {"bubblewrap": "bubblewrap" if os.geteuid() == 0 else "user", "docker": "docker"}
ENGINES = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("bubblewrap", "docker")]
PROBES = [pytest.param(probe, id=f"{group}: {probe}") for group, each in GROUPS.items() for probe in each.PROBES]


@pytest.fixture(scope="module", params=ENGINES)
def sandboxes(request: pytest.FixtureRequest) -> Iterator[Sandboxes]:
    """The sandboxes of each engine in turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOST_VARIABLE, SECRET)
        made = Sandboxes(SETTING[request.param])
        try:
            yield made
        finally:
            made.close()


def held(probe: Probe, sandboxes: Sandboxes) -> Held:
    """What holds against the act here; skips where the engine does not refuse it."""
    found = probe.at(sandboxes.setting)
    if isinstance(found, Open):
        pytest.skip(f"not refused: {found.reason}")
    return found


@pytest.mark.parametrize("probe", PROBES)
def test_nobody_inside_can(probe: Probe, sandboxes: Sandboxes) -> None:
    held(probe, sandboxes)
    came_of_it = sandboxes.try_(probe)
    assert not came_of_it.allowed, came_of_it.why


@pytest.mark.parametrize("probe", PROBES)
def test_without_its_protections_one_can(probe: Probe, sandboxes: Sandboxes) -> None:
    found = held(probe, sandboxes)
    if found.no_control:
        pytest.skip(f"no control: {found.no_control}")
    if OUTSIDE in found.by and os.geteuid() != 0:
        pytest.skip("no control: only root could do this outside")
    if not Path(probe.needs).exists():
        pytest.skip(f"no control: this machine's kernel has no {probe.needs}")
    came_of_it = sandboxes.try_(probe, frozenset(found.by))
    if came_of_it.why == "ENOSYS" and sandboxes.try_(probe, frozenset({OUTSIDE})).why == "ENOSYS":
        pytest.skip("no control: this machine's kernel cannot do it at all")
    assert came_of_it.allowed, came_of_it.why


@pytest.mark.parametrize("probe", PROBES)
def test_each_layer_holds_alone_against(probe: Probe, sandboxes: Sandboxes) -> None:
    found = held(probe, sandboxes)
    for layer in found.by:
        if OUTSIDE in found.by or len(found.by) == 1:
            continue
        came_of_it = sandboxes.try_(probe, frozenset(found.by) - {layer})
        assert not came_of_it.allowed, f"{layer}: {came_of_it.why}"
