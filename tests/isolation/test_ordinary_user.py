"""The same under the manager of an ordinary user, whose sandboxes run as himself: alone, and in the docker group."""

from __future__ import annotations

import grp
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ..engines.bubblewrap.conftest import ordinary_user  # noqa: F401 - a fixture

AsUser = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.root


@pytest.fixture
def tests(ordinary_user: AsUser) -> Callable[[str], str]:  # noqa: F811
    """Runs the tests of this directory that ``chosen`` selects as that user; what pytest printed."""

    def run(chosen: str) -> str:
        options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not root", "-k", chosen]
        done = ordinary_user(*options, "tests/isolation")
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert " passed" in done.stdout
        return done.stdout

    return run


@pytest.mark.bubblewrap
def test_all_of_it_holds_on_bubblewrap_for_an_ordinary_user(tests: Callable[[str], str]) -> None:
    tests("bubblewrap and not no_cgroups and not each_layer")  # he has no control groups; the layers are the same


@pytest.mark.docker
def test_nobody_inside_can_more_on_docker_for_a_user_in_the_docker_group(
    tests: Callable[[str], str],
    ordinary_user: AsUser,  # noqa: F811
) -> None:
    group = grp.getgrgid(Path("/var/run/docker.sock").stat().st_gid).gr_name
    if group == "root":
        pytest.skip("the daemon's socket belongs to root alone")
    name = ordinary_user("-c", "import pwd, os; print(pwd.getpwuid(os.getuid()).pw_name)").stdout.strip()
    subprocess.run(["usermod", "--append", "--groups", group, name], check=True, timeout=30)
    tests("docker and nobody and (host or neighbours)")
