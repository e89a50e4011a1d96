"""The page for administrators says what the settings say, and its policies are policies."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from jupyter_sandbox.manager.config import SandboxManager
from jupyter_sandbox.manager.policy import Ceilings, Policy
from jupyter_sandbox.manager.principals import Principal

PAGE = (Path(__file__).parents[2] / "docs" / "administrators.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_setting_stands_there_with_its_help() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section("Configuration"), re.MULTILINE))
    assert listed == {name: trait.help for name, trait in SandboxManager.class_traits(config=True).items()}


def test_every_ceiling_stands_there() -> None:
    cells = re.findall(r"^\| (`.*?`) \|", section("Policy"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == {field.name for field in dataclasses.fields(Ceilings)}


def test_the_policy_of_a_class_is_one() -> None:
    source = re.search(r"^    def policy\(principal\):\n(?:     .*\n)+", section("Policy"), re.MULTILINE)
    assert source is not None
    names: dict[str, object] = {}
    exec("if True:\n" + source[0], names)
    policy = Policy(names["policy"])  # type: ignore[arg-type]
    student = policy(Principal(owner="os:ada", actor="os:ada", groups=("students",)))
    assert (student.sandboxes, student.limits.memory, student.network) == (2, 1024**3, "none")
    assert policy(Principal(owner="os:eve", actor="os:eve", groups=("teachers",))) == Ceilings()
