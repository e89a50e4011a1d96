"""What `auto` means: the stronger engine that works here, and a reason for each where none does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox.engines.base import Probe
from jupyter_sandbox.engines.choose import available_engines, choose, decide
from jupyter_sandbox.errors import SandboxError

WORKS = Probe(True)
NO_DOCKER = Probe(False, "The Docker daemon does not answer.", "Start it.")
NO_BWRAP = Probe(False, "User namespaces are not allowed.", "Allow them.")


@pytest.mark.parametrize(
    ("probes", "chosen"),
    [
        ({"docker": WORKS, "bubblewrap": WORKS}, "docker"),
        ({"bubblewrap": WORKS, "docker": WORKS}, "docker"),
        ({"docker": NO_DOCKER, "bubblewrap": WORKS}, "bubblewrap"),
        ({"docker": WORKS, "bubblewrap": NO_BWRAP}, "docker"),
        ({"docker": NO_DOCKER, "other": WORKS}, "other"),
    ],
)
def test_the_stronger_engine_that_works_is_chosen(probes: dict[str, Probe], chosen: str) -> None:
    assert decide(probes) == chosen


def test_where_none_works_each_reason_and_remedy_is_told() -> None:
    with pytest.raises(SandboxError) as caught:
        decide({"docker": NO_DOCKER, "bubblewrap": NO_BWRAP})
    assert caught.value.code == "NO_ENGINE"
    for text in ("does not answer", "not allowed"):
        assert text in caught.value.message
    for text in ("Start it.", "Allow them."):
        assert text in caught.value.remedy


def test_without_any_engine_the_general_remedy_is_told() -> None:
    with pytest.raises(SandboxError) as caught:
        decide({})
    assert "jupyter sandbox build" in caught.value.remedy


class ProbedOnce:
    """An engine of which only the probe is ever asked."""

    def __init__(self, answer: Probe) -> None:
        self.answer = answer
        self.asked = 0

    async def probe(self) -> Probe:
        self.asked += 1
        return self.answer


async def test_what_comes_after_the_first_that_works_is_not_tried() -> None:
    engines: dict[str, Any] = {"bubblewrap": ProbedOnce(WORKS), "docker": ProbedOnce(WORKS)}
    assert await choose(engines) == "docker"
    assert engines["bubblewrap"].asked == 0


async def test_every_engine_has_the_name_under_which_it_is_found(tmp_path: Path) -> None:
    for name, make in available_engines(tmp_path).items():
        engine = make()
        assert engine.name == name
        await engine.close()
