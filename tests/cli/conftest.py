"""The command line as a user runs it: a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli() -> Run:
    """Runs ``jupyter sandbox`` with the given words."""

    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if "input" not in options else {}
        return subprocess.run(
            [sys.executable, "-m", "jupyter_sandbox.cli", *words],
            **{"capture_output": True, "text": True, "timeout": 120, **given, **options},
        )

    return run
