"""The default image has what the design promises, for its ordinary user, and nothing of the machine that built it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_sandbox import __version__
from jupyter_sandbox.engines.images.build import CONTEXT

IMAGE = f"jupyter-sandbox:{__version__}"

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def inside() -> Callable[[str], str]:
    """Runs a shell command in the image, as the engine does, and returns what it writes."""

    def run(command: str, *options: str) -> str:
        hardened = ("--rm", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1000:1000")
        done = subprocess.run(
            ["docker", "run", *hardened, *options, IMAGE, "bash", "-ec", command],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_everything_promised_is_there_and_runs_for_its_user(inside: Callable[[str], str]) -> None:
    found = inside(
        "id -un; echo $HOME; pwd; command -v python3; node -p 'process.versions.node.split(\".\")[0] >= 20';"
        "for tool in npm npx git ps bash; do $tool --version >/dev/null; done;"
        "touch ~/file /workspace/file /tmp/file; jupyter kernelspec list --json"
    )
    user, home, where, python, node, specs = found.split("\n", 5)
    assert (user, home, where) == ("sandbox", "/home/sandbox", "/workspace")
    assert python == "/opt/venv/bin/python3"
    assert node == "true"
    assert "python3" in json.loads(specs)["kernelspecs"]


def test_plots_and_tables_work_with_fonts_ready(inside: Callable[[str], str]) -> None:
    script = """
import logging, sys
logging.basicConfig(level=logging.INFO)
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt, numpy, pandas, pyarrow
plt.plot(numpy.arange(3)); plt.savefig("/tmp/plot.png")
assert pandas.DataFrame({"a": [1]}).equals(pyarrow.table({"a": [1]}).to_pandas())
"""
    said = inside(f"python3 - 2>&1 <<'END'\n{script}\nEND\n")
    assert "generated new fontManager" not in said
    assert "Traceback" not in said


def test_the_environment_cannot_be_changed_by_the_user(inside: Callable[[str], str]) -> None:
    assert inside("touch /opt/venv/x 2>/dev/null && echo written || echo refused") == "refused"
    assert inside("find /opt/venv -not -type l -perm -o+w | head -1") == ""
    assert inside("find /opt/venv -type f -not -perm -o+r | head -1") == ""


def test_no_certificate_of_the_building_machine_is_in_it(inside: Callable[[str], str]) -> None:
    assert inside("ls -A /run/secrets 2>/dev/null | wc -l") == "0"
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE], capture_output=True, text=True
    ).stdout
    assert "COPY" not in history
    assert "ADD" not in history


def test_it_says_which_version_it_is() -> None:
    label = '{{index .Config.Labels "org.jupyter.sandbox.version"}}'
    done = subprocess.run(["docker", "image", "inspect", "-f", label, IMAGE], capture_output=True, text=True)
    assert done.stdout.strip() == __version__


def test_the_dockerfile_needs_no_front_end_from_a_registry() -> None:
    lines = (CONTEXT / "Dockerfile").read_text().splitlines()
    assert not any(line.replace(" ", "").lower().startswith("#syntax=") for line in lines)


def test_making_the_test_image_again_does_nothing() -> None:
    script = Path(__file__).with_name("make.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout == f"{IMAGE} is there.\n"


def test_without_mmdebstrap_the_script_says_what_is_missing(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Error: No such image' >&2\nexit 1\n")
    docker.chmod(0o755)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("make.py")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "mmdebstrap" in done.stderr
