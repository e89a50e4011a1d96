"""list, status, exec, sleep, wake, extend and destroy, through real sandboxes."""

from __future__ import annotations

import json

from jupyter_sandbox import __version__

from .conftest import Run


def test_a_sandbox_lives_from_exec_to_destroy(engine_name: str, cli: Run) -> None:
    made = cli("exec", "mine", "echo out; echo err >&2; exit 3")
    assert (made.stdout, made.stderr, made.returncode) == ("out\n", "err\n", 3)

    listed = json.loads(cli("list", "--json").stdout)
    assert [(one["id"], one["state"], one["engine"]) for one in listed] == [("mine", "running", engine_name)]
    title, row = cli("list").stdout.splitlines()
    assert title.split()[:3] == ["ID", "STATE", "ENGINE"]
    assert row.split()[:3] == ["mine", "running", engine_name]

    assert cli("sleep", "mine").returncode == 0
    assert json.loads(cli("status", "mine", "--json").stdout)["state"] == "sleeping"
    asleep = cli("extend", "mine", "1h")
    assert (asleep.returncode, "wake" in asleep.stderr) == (1, True)
    assert cli("wake", "MINE").stdout == "mine runs.\n"
    assert cli("extend", "mine", "1h").stdout == "mine stays awake for 1h at least.\n"
    assert "soon" in cli("extend", "mine", "soon").stderr
    shown = cli("status", "mine").stdout
    assert "running" in shown
    assert "disk: not enforced" in shown

    assert cli("exec", "--cwd", "/tmp", "--stdin", "mine", "cat; pwd", input="in\n").stdout == "in\n/tmp\n"
    assert cli("exec", "mine", "--", "printf", "%s|", "a b", "$HOME").stdout == "a b|$HOME|"
    late = cli("exec", "--timeout", "0.5", "mine", "sleep 60")
    assert (late.returncode, late.stderr) == (124, "Killed after 0.5 s.\n")

    assert cli("destroy", "mine").returncode == 0
    assert cli("list").stdout == ""


def test_destroying_what_is_not_there_succeeds_and_waking_it_does_not(engine_name: str, cli: Run) -> None:
    assert cli("destroy", "nothing").returncode == 0
    woken = cli("wake", "nothing")
    assert woken.returncode == 1
    assert "nothing" in woken.stderr
    assert "Traceback" not in woken.stderr
    assert "absent" in cli("status", "nothing").stdout


def test_an_error_is_its_sentence_and_its_remedy(cli: Run) -> None:
    done = cli("exec", "not_an_id", "true")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2
    assert "'_'" in done.stderr


def test_a_command_line_that_cannot_be_read_is_2(cli: Run) -> None:
    for words in (
        [],
        ["explode"],
        ["exec", "mine"],
        ["status"],
        ["exec", "--timeout", "soon", "mine", "true"],
        ["exec", "mine", "--cwd", "/", "ls"],
    ):
        done = cli(*words)
        assert done.returncode == 2, words
        assert "usage" in done.stderr


def test_the_version_is_told(cli: Run) -> None:
    assert cli("version").stdout == cli("--version").stdout == f"jupyter-sandbox {__version__}\n"
