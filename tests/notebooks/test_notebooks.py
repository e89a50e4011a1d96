"""Every notebook runs from top to bottom on each engine, with the very runner of `make demo`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

Runner = Callable[[Path], "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, engine_name: str, run_notebook: Runner) -> None:
    done = run_notebook(notebook)
    assert done.returncode == 0, done.stdout + done.stderr
    if notebook.stem == "quickstart":
        _shows_what_it_promises(done.stdout)


def _shows_what_it_promises(shown: str) -> None:
    expected = [
        r"Hello from sandbox in /workspace",
        r"\(365, 3\)",
        r"\n'?False",  # the notebook's own Python knows nothing of the sandbox's variables
        r"\[image/png, \d+ kB\]",
        r"red +green +blue",
        r"TypeError: unsupported operand",
        r"15 poem.txt",
        r"The Analytical Engine weaves",
        r"files: +\[\]",
        r"walk is known: +False",
        r"this notebook: +False",
        r"'sleeping'",
        r"Good morning",
        r"Every cell ran",
    ]
    missing = [pattern for pattern in expected if not re.search(pattern, shown)]
    assert not missing, f"{missing}\n{shown}"
    assert "quickstart-" not in shown[shown.index("│ %sandbox list") :].split("Where to go next")[0], shown


def test_the_runner_stops_at_a_cell_that_fails(tmp_path: Path, run_notebook: Runner) -> None:
    done = run_notebook(_notebook(tmp_path, "print('before')", "1 / 0", "print('after')"))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout
    assert "before" in done.stdout
    assert "\nafter" not in done.stdout


def test_the_runner_goes_on_after_an_error_that_the_notebook_announces(tmp_path: Path, run_notebook: Runner) -> None:
    path = _notebook(tmp_path, "1 / 0", "print('after')")
    notebook = nbformat.reads(path.read_text(), as_version=4)
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    path.write_text(nbformat.writes(notebook))
    done = run_notebook(path)
    assert done.returncode == 0
    assert "\nafter" in done.stdout


def test_the_runner_stops_when_the_kernel_dies(tmp_path: Path, run_notebook: Runner) -> None:
    done = run_notebook(_notebook(tmp_path, "import os; os._exit(3)", "print('after')"))
    assert done.returncode == 1
    assert "Every cell ran" not in done.stdout


def test_papermill_stops_at_a_cell_that_fails_in_the_sandbox(tmp_path: Path, engine_name: str) -> None:
    source = _notebook(tmp_path, "%load_ext jupyter_sandbox", "%%sandbox paper\n1 / 0", "print('after')")
    result = tmp_path / "result.ipynb"
    papermill = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar"]
    done = subprocess.run(
        [*papermill, source, result], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    cells = nbformat.reads(result.read_text(), as_version=4).cells
    assert [out.ename for cell in cells for out in cell.get("outputs", ()) if out.output_type == "error"]
    assert not cells[-1].outputs


def _notebook(directory: Path, *sources: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    path = directory / "test.ipynb"
    path.write_text(nbformat.writes(notebook))
    return path
