"""Variables that were lost: told in one line on stderr, with the reason, once for each context that had any."""

from __future__ import annotations

import pytest

from .conftest import RunCells, text_of

pytestmark = pytest.mark.bubblewrap

STOPPED = "import time\nfrom jupyter_sandbox import get_sandbox\n" + (
    "get_sandbox('a', sleep_after=0.5, stop_after=0.5).start()\n"
    "for _ in range(600):\n"
    "    if get_sandbox('a').status().state == 'stopped': break\n    time.sleep(0.1)\nelse: raise SystemExit('awake')"
)


def test_each_context_that_lost_its_variables_is_told_of_once_with_the_reason(cells: RunCells) -> None:
    ran = cells(
        [
            "%%sandbox a\nx = 1",
            "%%sandbox a --context other\ny = 1",
            STOPPED,
            "%%sandbox a --sleep-after 10m\nprint('again')",
            "%%sandbox a\nprint('again')",
            "%%sandbox a --context other\nprint('again')",
            "%%sandbox a --context other\nprint('again')",
            "%%sandbox a --context new\nprint('again')",
        ]
    )
    told = [text_of(cell, "stderr") for cell in ran[3:]]
    assert [text_of(cell) for cell in ran[3:]] == ["again\n"] * 5
    assert [bool(text) for text in told] == [True, False, True, False, False]
    for text, context in ((told[0], "default"), (told[2], "other")):
        (line,) = text.strip().splitlines()
        assert line.startswith("[sandbox a] It started anew, and the variables of context")
        assert repr(context) in line
        assert "asleep for longer than stop_after" in line


def test_extend_says_how_long_and_refuses_what_is_no_duration(cells: RunCells) -> None:
    _made, extended, wrong, short = cells(
        ["%sandbox create a", "%sandbox extend a 30m", "%sandbox extend a soon", "%sandbox extend a"]
    )
    assert text_of(extended) == "a stays awake for 30 min at least.\n"
    assert [cell.outputs[-1].ename for cell in (wrong, short)] == ["InvalidInput", "InvalidInput"]
    assert "soon" in wrong.outputs[-1].evalue
