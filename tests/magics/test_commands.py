"""``%sandbox``: its subcommands and tab completion in a real kernel, and all of it in IPython in a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Kernel, RunCells, errors_of, text_of

pytestmark = pytest.mark.bubblewrap


def test_a_sandbox_is_made_used_put_to_sleep_woken_and_destroyed(cells: RunCells) -> None:
    ran = cells(
        [
            "%sandbox create box --keep-alive --quiet",
            "%%sandbox box\nx = 1",
            "%sandbox sleep box",
            "%sandbox status box",
            "%sandbox list",
            "%sandbox wake box",
            "%%sandbox box\nprint(x)",
            "%sandbox destroy box",
            "%sandbox status box",
            "%%sandbox box\nx",
        ]
    )
    assert [errors_of(cell) for cell in ran[:9]] == [[]] * 9
    facts = dict(line.split(None, 1) for line in text_of(ran[3]).splitlines() if "  " in line.strip())
    assert (facts["id"], facts["state"], facts["engine"]) == ("box", "sleeping", "bubblewrap")
    assert "2 GiB memory" in facts["limits"]
    assert text_of(ran[4]).splitlines()[1].split()[:3] == ["box", "sleeping", "bubblewrap"]
    assert text_of(ran[6]) == "1\n"
    assert text_of(ran[8]).split() == ["id", "box", "state", "absent"]
    assert [name for name, _ in errors_of(ran[9])] == ["NameError"]
    assert text_of(ran[9], "stderr") == ""


def test_a_command_gets_its_line_as_it_stands_and_its_failure_is_an_error(cells: RunCells) -> None:
    ran = cells(
        [
            "x = 'local'",
            "%sandbox exec box echo \"$HOME {x}\" 'a  b'; echo err >&2",
            "%sandbox exec box exit 3",
            "%sandbox exec box",
            "%sandbox wake nobody",
            "%sandbox expose box 8000",
            "%sandbox frobnicate",
            "%sandbox help",
        ]
    )
    assert text_of(ran[1]) == "/home/sandbox {x} a  b\n"
    assert text_of(ran[1], "stderr") == "err\n"
    assert errors_of(ran[2]) == [("CommandFailed", "The command ended with exit code 3.")]
    names = [errors_of(cell)[0][0] for cell in ran[3:7]]
    assert names == ["InvalidInput", "NotFound", "InvalidInput", "InvalidInput"]
    assert "%sandbox destroy ID" in text_of(ran[7])


def completions(kernel: Kernel, code: str) -> set[str]:
    reply = kernel.client.complete(code, len(code), reply=True, timeout=60)
    return set(reply["content"]["matches"])


def test_tab_completes_commands_options_and_ids(kernel: Kernel) -> None:
    kernel.run("%sandbox create user-123\nvalue = 1")
    assert {"status", "sleep"} <= completions(kernel, "%sandbox s")
    assert "user-123" in completions(kernel, "%sandbox status us")
    assert "user-123" in completions(kernel, "%%sandbox us")
    assert "--sleep-after" in completions(kernel, "%%sandbox user-123 --sl")
    assert "--timeout" in completions(kernel, "%%sandbox user-123 --keep-alive --")
    assert "--timeout" not in completions(kernel, "%sandbox create user-123 --")
    assert "value" in completions(kernel, "%%sandbox user-123 -i val")


TERMINAL = r"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "jupyter_sandbox")
def cell(code, line="box"):
    result = shell.run_cell(f"%%sandbox {line}\n{code}", store_history=True)
    print("success:", result.success)
cell("print('hello'); 6 * 7", "box --quiet")
cell("print('a \x1b]0;title\x07 \x1b[31mred\x1b[0m \x1b[6n b')")
cell("name = input('name? '); print('hi', name)")
cell("1 / 0")
cell("import ipywidgets; ipywidgets.IntSlider()")
cell("display('shown', display_id='d'); from IPython.display import clear_output; clear_output()")
print(shell.user_ns["_"])
shell.run_line_magic("sandbox", "destroy box")
"""


def test_it_works_in_ipython_without_a_kernel(bubblewrap_environment: Any, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TERMINAL], input="Ada\n", capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert ran.stderr == ""
    assert "hello\nOut[1]: 42\n" in ran.stdout
    assert "[sandbox box] name? hi Ada" in ran.stdout
    assert "\x1b[31mred\x1b[0m" in ran.stdout
    assert "\x1b]" not in ran.stdout
    assert "\x1b[6n" not in ran.stdout
    assert "ZeroDivisionError" in ran.stdout
    assert "IntSlider(value=0)" in ran.stdout
    assert ran.stdout.count("success: True") == 5
    assert ran.stdout.count("success: False") == 1
    assert "box is destroyed." in ran.stdout
