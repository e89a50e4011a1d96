"""`jupyter sandbox build`: which docker command, what it shows, what it says at the end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from jupyter_sandbox.cli.build import Display, LiveDisplay
from jupyter_sandbox.engines.images import BuildEvent
from jupyter_sandbox.engines.images.build import find_cli
from jupyter_sandbox.engines.images.progress import Log
from jupyter_sandbox.errors import SandboxError

from .conftest import Run

LOG = """\
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 2.70kB done
#1 DONE 0.0s
#5 [1/3] FROM docker.io/library/base:1
#5 CACHED
#6 [stage-0 2/3] RUN --mount=type=secret,id=ca     : "Python packages";     pip install
#6 0.512 Collecting numpy
#6 1.020 \x1b[31mred\x1b[0m
#6 DONE 21.4s
#7 [stage-0 3/3] RUN true
#7 DONE 0.2s
#8 exporting to image
#8 exporting layers 3.2s done
#8 DONE 3.2s
"""


def events(log: str = LOG) -> list[BuildEvent]:
    found: list[BuildEvent] = []
    reader = Log(found.append)
    for line in log.splitlines():
        reader.read(line)
    return found


def test_the_log_of_a_build_is_read_as_steps() -> None:
    done = [(event.number, event.total, event.title, event.seconds) for event in events() if event.kind == "done"]
    assert done == [
        (1, 3, "FROM docker.io/library/base:1", None),
        (2, 3, "Python packages", 21.4),
        (3, 3, "RUN true", 0.2),
        (0, 0, "export the image", 3.2),
    ]
    assert next(event.text for event in events() if event.kind == "output") == "Collecting numpy"


def test_lines_that_nobody_expects_do_no_harm() -> None:
    assert events("#\n#x y\n------\n > [2/3] RUN x\n#9 0.1 of a step that never began\n#9 DONE 1s\n") == []


def test_without_a_terminal_each_step_is_one_line_when_it_is_done() -> None:
    stream = io.StringIO()
    with Display(stream) as display:
        for event in events():
            display.show(event)
    assert stream.getvalue().splitlines() == [
        "  1/3 FROM docker.io/library/base:1: cached",
        "  2/3 Python packages: 21.4 s",
        "  3/3 RUN true: 0.2 s",
        "  export the image: 3.2 s",
    ]


def test_on_a_terminal_a_line_tells_what_runs_and_no_control_character_passes() -> None:
    stream = io.StringIO()
    with LiveDisplay(stream) as display:
        for event in events():
            display.show(event)
    shown = stream.getvalue()
    assert "2/3 Python packages 0 s  Collecting numpy" in shown
    assert "\x1b[31m" not in shown
    assert shown.endswith("\r\x1b[2K")


# --- which docker command ------------------------------------------------------------------------------------------


def command(directory: Path, script: str) -> Path:
    directory.mkdir()
    path = directory / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_first_docker_command_that_can_use_buildkit_is_taken(tmp_path: Path) -> None:
    command(tmp_path / "a", "echo 'ERROR: the buildx component is missing' >&2; exit 1")
    command(tmp_path / "b", "echo 'Usage: docker build'")
    good = command(tmp_path / "c", '[ "$DOCKER_BUILDKIT" = 1 ] && echo "  --secret stringArray"')
    path = ":".join(str(tmp_path / name) for name in ("none", "a", "b", "c"))
    assert find_cli({"PATH": path}) == str(good)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no `docker` command"):
        find_cli({"PATH": str(tmp_path)})
    command(tmp_path / "a", "exit 1")
    with pytest.raises(SandboxError, match="buildx"):
        find_cli({"PATH": str(tmp_path / "a")})


# --- for real ------------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_a_build_that_fails_shows_its_last_lines_and_what_to_do(cli: Run) -> None:
    done = cli("build", "--base", "Not-An-Image", "--tag", "jsb-test-never:1")
    assert done.returncode == 1
    assert "Not-An-Image" in done.stderr
    assert "The image jsb-test-never:1 could not be built." in done.stderr
    assert "Traceback" not in done.stderr
