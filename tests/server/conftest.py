"""Fixtures of the server's tests: real Jupyter servers, a real manager, bubblewrap sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .servers import Server


@pytest.fixture
def start_server(environment, tmp_path, monkeypatch) -> Iterator[Callable[..., Server]]:
    """A function that starts a Jupyter server with given settings of ``ServerApp``."""
    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", "bubblewrap")
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    with ExitStack() as stack:

        def start(**settings: Any) -> Server:
            return stack.enter_context(Server(tmp_path, settings).running())

        yield start


@pytest.fixture
def server(start_server) -> Server:
    """A Jupyter server as it comes, which wants to know who asks for anything."""
    return start_server()
