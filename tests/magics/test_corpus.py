"""The same cells, run here and through ``%%sandbox``: what a notebook stores of them is the same, field by field.

Every difference stands in :data:`DIFFERENCES` with its reason. One that is not listed fails, and so does a listed one
that no longer occurs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cells, run_cells

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(180)]

SANITIZED = (
    "HTML of a sandbox is written anew by the sanitizer: no scripts, handlers and style sheets, links without opener"
)
FRAMED = "HTML with scripts or frames is shown in a frame with an origin of its own"
NOT_SHOWN = "what runs code, or what nobody knows, is not shown; a line says so"
IMAGE = "an SVG can hold scripts; as an image it cannot run them"
PLACE = "the working directory of a sandbox is /workspace"
RAISED = "IPython prints this error without an error output; here it is raised, which is what stops the notebook"

DIFFERENCES = {
    "HTML": SANITIZED,
    "HTML with a link": SANITIZED,
    "HTML with handler": SANITIZED,
    "HTML with script": FRAMED,
    "Markdown with HTML": SANITIZED,
    "JavaScript": NOT_SHOWN,
    "SVG": IMAGE,
    "unknown type": NOT_SHOWN,
    "DataFrame": SANITIZED,
    "audio": SANITIZED,
    "file link": PLACE,
    "iframe": FRAMED,
    "progress bar of IPython": SANITIZED,
    "exception group": RAISED,
    "sys.exit": RAISED,
    "usage error of a magic": RAISED,
    "unknown cell magic": RAISED,
    "automagic": PLACE,
    "magic with output": RAISED,
    "widget of a foreign module": NOT_SHOWN,
}
"""Cells whose stored outputs differ, and why."""

CORPUS = Path(__file__).parent / "corpus"


def corpus() -> dict[str, str]:
    """Names and sources of all cells."""
    found: dict[str, str] = {}
    for path in sorted(CORPUS.glob("*.ipy")):
        parts = re.split(r"^# %% (.+)\n", path.read_text(), flags=re.MULTILINE)
        for name, source in zip(parts[1::2], parts[2::2], strict=True):
            assert name not in found, f"two cells are called {name!r}"
            found[name] = source.rstrip("\n")
    return found


def test_the_corpus_has_at_least_40_cells() -> None:
    assert len(corpus()) >= 40


def test_stored_outputs_are_the_same_here_and_in_a_sandbox(bubblewrap_environment: Any) -> None:
    found = corpus()
    local = run_cells(list(found.values()))
    remote = run_cells([f"%%sandbox corpus\n{source}" for source in found.values()])
    different = {
        name: f"local:   {short(here)}\n    sandbox: {short(there)}"
        for name, here, there in zip(found, normalized(local), normalized(remote), strict=True)
        if here != there
    }
    unlisted = [f"{name}\n    {what}" for name, what in different.items() if name not in DIFFERENCES]
    assert not unlisted, "differences that are not listed:\n" + "\n".join(unlisted)
    assert set(DIFFERENCES) <= set(different), f"no longer different: {sorted(set(DIFFERENCES) - set(different))}"


def normalized(cells: Cells) -> list[list[Any]]:
    """The outputs without what differs from run to run: addresses, counts inside tracebacks, paths, ids, times."""
    models: dict[str, str] = {}

    def model(match: re.Match[str]) -> str:
        return models.setdefault(match[0], f"model-{len(models)}")

    texts = [json.dumps(joined(cell.outputs), sort_keys=True) for cell in cells]
    for pattern, replacement in (
        (r"0x[0-9a-f]{6,}", "0xADDRESS"),
        (r"In\[\d+\]", "In[N]"),
        (r"\(\d+\.py, line", "(CELL.py, line"),
        (r"/tmp/ipykernel_\d+/\d+\.py", "CELL.py"),
        (r"\b[0-9a-f]{32}\b", model),
        (r"\d+(\.\d+)? (ns|\\u03bcs|ms|s) \\u00b1.*?each\)", "TIME"),
    ):
        texts = [re.sub(pattern, replacement, text) for text in texts]
    return [json.loads(text) for text in texts]


def joined(outputs: list[Any]) -> list[Any]:
    """Adjacent pieces of one stream as one: where a stream is cut depends on when it was flushed."""
    whole: list[Any] = []
    for output in outputs:
        if whole and output.output_type == whole[-1].output_type == "stream" and output.name == whole[-1].name:
            whole[-1] = {**whole[-1], "text": whole[-1].text + output.text}
            whole[-1] = type(output)(whole[-1])
        else:
            whole.append(output)
    return whole


def short(outputs: list[Any]) -> str:
    return json.dumps(outputs)[:1500]
