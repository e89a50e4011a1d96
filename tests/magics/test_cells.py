"""A ``%%sandbox`` cell in a real notebook: state, errors that stop the run, ends that are told, never run locally."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from nbclient.exceptions import CellExecutionError

from .conftest import Kernel, RunCells, errors_of, run_cells, text_of

pytestmark = pytest.mark.bubblewrap


def test_cells_of_one_context_share_variables_and_contexts_do_not(cells: RunCells) -> None:
    first = cells(
        ["%%sandbox a --quiet\nx = 1", "%%sandbox a\nprint(x)", "%%sandbox a --context c\nx", "%%sandbox b\nx", "x"]
    )
    assert first[0].outputs == []
    assert text_of(first[1]) == "1\n"
    assert [errors_of(cell)[0][0] for cell in first[2:]] == ["NameError"] * 3


def test_the_result_is_numbered_like_the_cell_and_kept(cells: RunCells) -> None:
    ran = cells(["1", "%%sandbox a\n6 * 7", "print(_, type(_).__name__, Out[3])"])
    assert ran[1].outputs[0].execution_count == ran[1].execution_count == 3
    assert text_of(ran[2]) == "42 RemoteResult 42\n"


def test_a_line_in_doubt_never_runs_the_cell_here_nor_starts_anything(cells: RunCells, tmp_path: Path) -> None:
    lines = ["a --no-such", "bad_id", "a --timeout never", "", "a -i undefined", "a --language bash", "a 'open", "a b"]
    body = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    *doubtful, empty, listed = cells(
        [*(f"%%sandbox {line}\n{body}" for line in lines), "%%sandbox a\n \n", "%sandbox list"]
    )
    assert [errors_of(cell)[0][0] for cell in (*doubtful, empty)] == ["InvalidInput"] * (len(lines) + 1)
    assert not (tmp_path / "ran").exists()
    assert text_of(listed) == "There are no sandboxes.\n"


def test_without_a_manager_the_cell_is_an_error_and_does_not_run_here(
    cells: RunCells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(blocked / "below"))
    ran = cells([f"%%sandbox a\nopen({str(tmp_path / 'ran')!r}, 'w').close()"])
    assert len(errors_of(ran[0])) == 1
    assert not (tmp_path / "ran").exists()


def test_a_remote_error_stops_the_notebook(cells: RunCells) -> None:
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run_cells(["%%sandbox a\n1 / 0", "print('not reached')"], allow_errors=False)


def test_a_remote_error_can_be_caught_as_one_class(cells: RunCells) -> None:
    source = (
        "from jupyter_sandbox.magics.errors import RemoteError\n"
        "try:\n    get_ipython().run_cell_magic('sandbox', 'a', '{}[1]')\n"
        "except RemoteError as problem:\n    print(problem.ename, problem.evalue, problem.sandbox_id)"
    )
    assert text_of(cells([source])[0]) == "KeyError 1 a\n"


def test_the_cell_is_passed_as_it_stands(cells: RunCells) -> None:
    ran = cells(["name = 'local'", "%%sandbox a\nname = 'remote'\nprint('{name} $name {{name}}')\n!echo {name} $name"])
    assert text_of(ran[1]).replace("\r", "") == "{name} $name {{name}}\nremote remote\n"


def test_a_kernel_that_dies_says_why_and_the_next_cell_tells_in_one_line(cells: RunCells) -> None:
    sources = ["x = 1\nimport os\nos._exit(3)", "print(2)", "print(3)", "x"]
    died, told, quiet, gone = cells([f"%%sandbox a\n{source}" for source in sources])
    assert errors_of(died)[0][0] == "KernelDied"
    assert "3" in errors_of(died)[0][1]
    assert text_of(told) == "2\n"
    assert text_of(told, "stderr").count("\n") == 1
    assert "variables" in text_of(told, "stderr")
    assert text_of(quiet, "stderr") == ""
    assert errors_of(gone)[0][0] == "NameError"


def test_the_sandbox_of_bare_cells_is_chosen_with_use_and_options_are_kept_with_it(cells: RunCells) -> None:
    ran = cells(
        ["%%sandbox\n1", "%sandbox use My-Box", "%%sandbox\nx = 1", "%%sandbox --keep-alive\nprint(x)", "%sandbox list"]
    )
    assert errors_of(ran[0])[0][0] == "InvalidInput"
    assert text_of(ran[3]) == "1\n"
    assert "my-box" in text_of(ran[4])
    assert "never" in text_of(ran[4])


def test_a_thread_that_prints_when_its_cell_has_ended_prints_below_it(kernel: Kernel) -> None:
    late = "import threading\nthreading.Timer(1, lambda: (print('late'), display('shown'))).start()"
    cell = kernel.start(f"%%sandbox a\n{late}")
    kernel.finish(cell)
    assert kernel.next("stream")["parent_header"]["msg_id"] == cell
    assert kernel.next("display_data")["parent_header"]["msg_id"] == cell


SCRIPT = "%%sandbox a\nfrom IPython.display import Javascript; Javascript('1')"


def test_the_text_of_a_notebook_cannot_widen_the_output(cells: RunCells) -> None:
    ran = cells(["%config SandboxMagics.output = 'full'", SCRIPT])
    assert "configuration file" in text_of(ran[0], "stderr")
    assert "application/javascript" not in ran[1].outputs[0].data


def test_configuration_widens_the_output(cells: RunCells) -> None:
    profile = Path(os.environ["IPYTHONDIR"]) / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text("get_config().SandboxMagics.output = 'full'\n")
    assert "application/javascript" in cells([SCRIPT])[0].outputs[0].data


def test_unloading_takes_the_magics_away_and_loading_brings_them_back(cells: RunCells) -> None:
    ran = cells(
        ["%unload_ext jupyter_sandbox", "%%sandbox a\nprint(2)", "%load_ext jupyter_sandbox", "%%sandbox a\nprint(3)"]
    )
    assert text_of(ran[1]) == ""
    assert text_of(ran[3]) == "3\n"


def test_a_sandbox_that_was_stopped_from_outside_is_told_of_once(bubblewrap_environment: Any, kernel: Kernel) -> None:
    kernel.run("%%sandbox a\nx = 1")
    manager = bubblewrap_environment.manager_pid
    os.kill(manager, signal.SIGTERM)
    while Path(f"/proc/{manager}").exists():
        time.sleep(0.01)
    kernel.run("pass")
    texts = []
    for _ in range(2):
        reply, messages = kernel.run("%%sandbox a --quiet\nprint('on')")
        assert reply["status"] == "ok", reply
        texts.append([m["content"]["text"] for m in messages if m["msg_type"] == "stream"])
    assert len(texts[0]) == 2
    assert texts[0][0].startswith("[sandbox a]")
    assert texts[1] == ["on\n"]
