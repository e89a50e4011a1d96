"""The lines of ``%sandbox`` and ``%%sandbox``: what is understood, and that everything else is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.errors import SandboxError
from jupyter_sandbox.magics.arguments import COMMANDS, LATER, one_id, parse_cell, parse_command, parse_create
from jupyter_sandbox.magics.help import help_text


def code_of(line: str) -> str:
    with pytest.raises(SandboxError) as caught:
        parse_cell(line)
    return caught.value.code


def test_all_options_of_a_cell_are_read() -> None:
    found = parse_cell(
        "user-1 --sleep-after 30m --context c1 --timeout 60 -i x -i y -o z --keep-alive --quiet --image a:b"
    )
    assert (found.sandbox_id, found.context, found.timeout) == ("user-1", "c1", 60.0)
    assert (found.inputs, found.outputs, found.quiet) == (("x", "y"), ("z",), True)
    assert found.options == {"sleep_after": 1800.0, "keep_alive": True, "image": "a:b"}


def test_a_bare_line_gives_the_defaults() -> None:
    found = parse_cell("")
    assert (found.sandbox_id, found.context, found.timeout, found.options) == (None, "default", None, {})


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        ("u --foo", "INVALID_MAGIC", "--foo"),
        ("u --time 3", "INVALID_MAGIC", "--time"),
        ("u --timout 3", "INVALID_MAGIC", "--timeout"),
        ("u v", "INVALID_MAGIC", "'v'"),
        ("u --timeout", "INVALID_MAGIC", "--timeout"),
        ("u 'open", "INVALID_MAGIC", "open"),
        ("u --timeout 0", "INVALID_DURATION", "0"),
        ("u --timeout soon", "INVALID_DURATION", "soon"),
        ("u --timeout nan", "INVALID_DURATION", "nan"),
        ("u --sleep-after -1s", "INVALID_MAGIC", "--sleep-after"),
        ("u --sleep-after 1d", "INVALID_DURATION", "1d"),
        ("u -i 1x", "INVALID_MAGIC", "1x"),
        ("u -o for", "INVALID_MAGIC", "for"),
        ("u --context ''", "INVALID_MAGIC", "--context"),
        ("u --network lan", "INVALID_OPTION", "lan"),
        ("u --image 'a b'", "INVALID_OPTION", "a b"),
        ("-u", "INVALID_MAGIC", "-u"),
        ("u_1", "INVALID_ID_CHARACTER", "_"),
        ("www", "INVALID_ID_RESERVED", "www"),
        ("u-", "INVALID_ID_HYPHEN", "u-"),
        ("u --language bash", "NOT_AVAILABLE_YET", "bash"),
    ],
)
def test_a_line_that_is_wrong_is_refused_with_what_is_wrong(line: str, code: str, named: str) -> None:
    with pytest.raises(SandboxError) as caught:
        parse_cell(line)
    assert caught.value.code == code
    assert named in caught.value.message


@given(st.text(max_size=60))
def test_no_line_raises_anything_but_an_error_of_ours(line: str) -> None:
    try:
        found = parse_cell(line)
    except SandboxError:
        return
    assert found.sandbox_id is None or found.sandbox_id


@pytest.mark.parametrize("name", LATER)
def test_what_comes_later_is_refused_by_name(name: str) -> None:
    with pytest.raises(SandboxError, match=name) as caught:
        parse_command(f"{name} user-1 8000")
    assert caught.value.code == "NOT_AVAILABLE_YET"


def test_an_unknown_command_names_the_nearest_one() -> None:
    with pytest.raises(SandboxError, match="'destroy'"):
        parse_command("detsroy user-1")


def test_the_rest_of_a_command_is_left_as_it_stands() -> None:
    assert parse_command("exec u echo $HOME  {x} 'a") == ("exec", "u echo $HOME  {x} 'a")


def test_an_empty_line_is_help() -> None:
    assert parse_command(" ") == ("help", "")


@pytest.mark.parametrize("text", ["", "a b", "a_b"])
def test_a_command_needs_one_good_id(text: str) -> None:
    with pytest.raises(SandboxError):
        one_id(text, "sleep")


def test_create_takes_the_options_of_a_sandbox_and_no_others() -> None:
    assert parse_create("u --sleep-after 1h") == ("u", False, {"sleep_after": 3600.0})
    with pytest.raises(SandboxError, match="--timeout"):
        parse_create("u --timeout 3")


def test_help_names_every_command_and_option() -> None:
    text = help_text()
    assert all(name in text for name in [*COMMANDS, "--timeout", "-i NAME"])
