"""What the documentation shows is run, and what it names exists."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from jupyter_sandbox.options import SandboxOptions

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

Runner = Callable[[Path], "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if PYTHON.search(page.read_text())], ids=lambda page: page.stem
)
def test_the_examples_of_a_page_run_one_after_the_other(
    page: Path, engine_name: str, run_notebook: Runner, tmp_path: Path
) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in PYTHON.findall(page.read_text())]
    path = tmp_path / f"{page.stem}.ipynb"
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
    done = run_notebook(path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    gone = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"(?:`|^ {4}(?:.*; )?)make ([a-z]+)", page.read_text(), re.MULTILINE))
    there = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= there


def test_the_readme_lists_every_option() -> None:
    table = (ROOT / "README.md").read_text().split("\n## Options")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert listed == {field.name for field in dataclasses.fields(SandboxOptions)} | {"normalize_id"}
