"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeVar

import pytest

from jupyter_sandbox import Sandbox, get_sandbox
from jupyter_sandbox.client import spawn

from .servers import ScriptedManager

Manager = TypeVar("Manager", bound=ScriptedManager)


@pytest.fixture
def serve(environment, monkeypatch) -> Iterator[Callable[[Manager], Manager]]:
    """Start a scripted manager; the client would start none of its own."""

    def refuse() -> int:
        raise AssertionError("the client started a manager")

    monkeypatch.setattr(spawn, "_spawn", refuse)
    with ExitStack() as stack:
        yield lambda manager: stack.enter_context(manager.running())


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A handle that is closed at the end."""
    with get_sandbox("one") as handle:
        yield handle
