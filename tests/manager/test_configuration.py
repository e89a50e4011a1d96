"""What ``jupyter_sandbox_config.py`` sets, seen from where it takes effect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox import SandboxError, get_sandbox, paths
from jupyter_sandbox.manager.config import load
from jupyter_sandbox.manager.policy import no_ceilings


def configure(line: str) -> None:
    directory = Path(os.environ["JUPYTER_CONFIG_DIR"])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "jupyter_sandbox_config.py").write_text(line)


@pytest.mark.bubblewrap
@pytest.mark.root
def test_root_gives_a_sandbox_a_uid_of_the_configured_range(environment: Any) -> None:
    configure("c.SandboxManager.uid_range = (300_000, 300_001)")
    with get_sandbox("ranged", engine="bubblewrap") as sandbox:
        assert sandbox.exec("true").success
        owners = {path.lstat().st_uid for path in paths.data_dir().glob("sandboxes/*/workspace")}
        assert owners <= {300_000, 300_001}
        assert owners
        sandbox.destroy()


def test_a_range_that_ends_before_it_begins_is_refused_by_name(environment: Any) -> None:
    configure("c.SandboxManager.uid_range = (300_001, 300_000)")
    with get_sandbox("ranged") as sandbox, pytest.raises(SandboxError, match="uid_range") as caught:
        sandbox.exec("true")
    assert caught.value.code == "INVALID_OPTION"


@pytest.mark.parametrize(
    ("value", "words"),
    [("'no_such_package.policy'", "cannot be imported"), ("'os.sep'", "is not a function"), ("3", "policy")],
)
def test_a_policy_that_is_no_function_is_refused_when_the_manager_starts(
    environment: Any, value: str, words: str
) -> None:
    configure(f"c.SandboxManager.policy = {value}")
    with pytest.raises(SandboxError, match=words) as caught:
        load()
    assert caught.value.code == "INVALID_OPTION"


def test_a_policy_may_be_given_by_its_dotted_name(environment: Any) -> None:
    configure("c.SandboxManager.policy = 'jupyter_sandbox.manager.policy.no_ceilings'")
    assert load().rule() is no_ceilings


def test_a_policy_in_the_configuration_bounds_real_sandboxes(engine_name: str) -> None:
    configure("c.SandboxManager.policy = lambda who: {'sandboxes': 1, 'limits': {'memory': '256m', 'pids': 64}}")
    with get_sandbox("one") as one, get_sandbox("two") as two:
        assert one.exec("true").success
        assert one.status().limits["memory"] == 256 * 1024**2
        with pytest.raises(SandboxError) as caught:
            two.exec("true")
        assert caught.value.code == "LIMIT_REACHED"
        with pytest.raises(SandboxError, match=r"limits\.pids=65 is above the ceiling of 64") as caught:
            get_sandbox("one", limits={"pids": 65}).exec("true")
        assert caught.value.code == "POLICY_DENIED"
        one.destroy()
        assert two.exec("true").success
        two.destroy()
