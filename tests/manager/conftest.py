"""Managers for the tests (see manager_parts.py)."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from manager_parts import InProcess, ManagerProcess, serving
from stand_in_engines import EngineOfPlainProcesses


@pytest.fixture
def place() -> Iterator[Path]:
    """A short private directory."""
    with tempfile.TemporaryDirectory(prefix="jsbm-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
async def manager(place: Path) -> AsyncIterator[InProcess]:
    """A manager in this loop, with plain processes for sandboxes."""
    async with serving(place, EngineOfPlainProcesses()) as parts:
        yield parts


@pytest.fixture
async def process(place: Path) -> AsyncIterator[ManagerProcess]:
    """A manager that is not started yet; at the end its sandboxes are destroyed and it is ended."""
    manager = ManagerProcess(place)
    yield manager
    if manager.process is None:
        return
    if manager.process.poll() is not None:
        await manager.start()
    assert manager.caller is not None
    for row in (await manager.caller.ask("GET", "http://manager/sandboxes"))[1]["sandboxes"]:
        await manager.caller.ask("DELETE", row["id"])
    await manager.let_go()
    if manager.process.poll() is None:
        manager.process.terminate()
        await manager.wait()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait until something is true; fails after ten seconds."""

    async def wait(condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while True:
                result = condition()
                if await result if asyncio.iscoroutine(result) else result:
                    return
                await asyncio.sleep(0.02)

    return wait
