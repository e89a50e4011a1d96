"""How errors, warnings, bugs and Ctrl-C come out, and the offer to build the image."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Callable

import pytest

from jupyter_sandbox.cli import build, main, sandboxes
from jupyter_sandbox.errors import SandboxError, SandboxWarning, error

Command = Callable[[argparse.Namespace], int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Command], int]:
    """Runs ``jupyter sandbox list`` with something else in its place; the exit code."""

    def run(instead: Command) -> int:
        monkeypatch.setattr(sandboxes, "_list", instead)
        return main(["list"])

    return run


def raising(exc: BaseException) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        raise exc

    return run


def test_an_error_of_ours_is_two_lines(command: Callable[[Command], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(raising(error("NO_ENGINE"))) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_bug_is_no_traceback(command: Callable[[Command], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(raising(ZeroDivisionError("division by zero"))) == 1
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_ctrl_c_is_130(command: Callable[[Command], int]) -> None:
    assert command(raising(KeyboardInterrupt())) == 130


def test_a_warning_is_one_line(command: Callable[[Command], int], capsys: pytest.CaptureFixture[str]) -> None:
    def warns(arguments: argparse.Namespace) -> int:
        warnings.warn("mind the gap", SandboxWarning, stacklevel=1)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert command(warns) == 0
    assert capsys.readouterr().err == "Warning: mind the gap\n"


# --- the offer -----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tags that a stand-in for the build was asked for."""
    tags: list[str] = []

    def stand_in(arguments: argparse.Namespace) -> int:
        tags.append(arguments.tag)
        return 0

    monkeypatch.setattr(build, "run", stand_in)
    return tags


def lacks(image: str, built: list[str]) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        if image not in built:
            raise error("IMAGE_MISSING", f"The image {image} is not on this machine.", image=image)
        return 0

    return run


def test_at_a_terminal_the_missing_image_is_offered_and_the_command_goes_on(
    command: Callable[[Command], int], built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert command(lacks(build.DEFAULT_TAG, built)) == 0
    assert built == [build.DEFAULT_TAG]


@pytest.mark.parametrize(
    ("stdin", "image"),
    [
        (Terminal("n\n"), build.DEFAULT_TAG),
        (Terminal(""), build.DEFAULT_TAG),
        (io.StringIO("y\n"), build.DEFAULT_TAG),
        (Terminal("y\n"), "of-somebody-else:1"),
    ],
)
def test_nothing_is_built_that_nobody_wants(
    command: Callable[[Command], int],
    built: list[str],
    monkeypatch: pytest.MonkeyPatch,
    stdin: io.StringIO,
    image: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert command(lacks(image, built)) == 1
    assert built == []


def test_errors_of_this_file_are_of_the_family() -> None:
    assert isinstance(error("BUILD_FAILED"), SandboxError)
