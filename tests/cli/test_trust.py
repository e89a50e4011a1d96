"""The name of an image, and the image that it stands for, on a real daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox import SandboxError, __version__, get_sandbox
from jupyter_sandbox.cli import trust

from .conftest import Run

NAME = "jsbtest-trust:1"


def docker(*words: str, text: str | None = None) -> None:
    subprocess.run(["docker", *words], input=text, check=True, capture_output=True, text=True, timeout=60)


def relabel(label: str) -> None:
    docker("build", "--tag", NAME, "-", text=f"FROM jupyter-sandbox:{__version__}\nLABEL jsbtest={label}\n")


@pytest.fixture
def image(environment: Any) -> Iterator[str]:
    """An image that is allowed; its name may be given to another one."""
    directory = Path(os.environ["JUPYTER_CONFIG_DIR"])
    (directory / "jupyter_sandbox_config.py").write_text(f"c.SandboxManager.images = [{NAME!r}]\n")
    relabel("first")
    yield NAME
    docker("rmi", "--force", NAME)


@pytest.mark.docker
def test_a_name_that_was_given_to_another_image_is_refused_until_it_is_trusted(image: str, cli: Run) -> None:
    with get_sandbox("first", engine="docker", image=image) as first, get_sandbox("second") as second:
        assert first.exec("true").success
        relabel("second")
        again = get_sandbox("second", engine="docker", image=image)
        with pytest.raises(SandboxError, match=image) as caught:
            again.exec("true")
        assert caught.value.code == "POLICY_DENIED"
        assert f"jupyter sandbox trust {image}" in caught.value.remedy
        assert first.exec("true").success
        done = cli("trust", image)
        assert done.returncode == 0, done.stderr
        assert image in done.stdout
        assert again.exec("true").success
        again.close()
        first.destroy()
        second.destroy()


@pytest.mark.docker
def test_an_image_that_is_not_listed_is_refused_with_the_line_to_write(environment: Any) -> None:
    with get_sandbox("a", engine="docker", image="jsbtest-other:1") as sandbox:
        with pytest.raises(SandboxError, match="jsbtest-other") as caught:
            sandbox.exec("true")
        assert caught.value.code == "POLICY_DENIED"
        assert "c.SandboxManager.images" in caught.value.remedy


def test_an_image_that_nobody_used_is_not_renewed_and_no_manager_is_started(environment: Any) -> None:
    trust.renew_if_used("never:1")
    assert environment.manager_pid is None
