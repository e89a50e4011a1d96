"""What ``jupyter_sandbox_config.py`` sets, seen from where it takes effect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox import SandboxError, get_sandbox, paths


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
