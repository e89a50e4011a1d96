"""Code that does not want to be stopped: frozen and ended all the same, where only signals can do it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from http.client import HTTPException
from pathlib import Path

import pytest

from .conftest import Place, run

pytestmark = [pytest.mark.bubblewrap, pytest.mark.usefixtures("without_cgroups")]

COUNTS = """
import ctypes, itertools, os, platform, signal, threading, time
file, numbers = os.open('/workspace/count', os.O_RDWR | os.O_CREAT), itertools.count(1)
def count():
    os.pwrite(file, next(numbers).to_bytes(8, 'little'), 0)
"""

FORKS_AND_ENDS = f"""{COUNTS}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork():
    while True:
        signal.pause()
while True:
    count()
    if os.fork():
        os._exit(0)
"""
"""Each process lives for a moment only; orphans vanish, because who inherits them ignores their ends."""

FIRST_THREAD_ENDS = f"""{COUNTS}
def go_on():
    while True:
        count()
        time.sleep(0.001)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall({{'x86_64': 60, 'aarch64': 93}}[platform.machine()], 0)
"""
"""/proc shows a zombie, whose other threads run on."""


def counted(directory: Path) -> int:
    try:
        return int.from_bytes((directory / "workspace/count").read_bytes(), "little")
    except FileNotFoundError:
        return 0


async def moves(directory: Path, patience: float) -> bool:
    """Whether the count changes within ``patience`` seconds."""
    before = counted(directory)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while counted(directory) in (before, 0):
                await asyncio.sleep(0.01)
    return counted(directory) not in (before, 0)


@pytest.mark.parametrize("evader", [FORKS_AND_ENDS, FIRST_THREAD_ENDS], ids=["forks and ends", "first thread ends"])
async def test_what_hides_from_proc_is_frozen_too(place: Place, evader: str) -> None:
    runtime = await place.start()
    directory = place.directory(runtime.lifetime)
    await run(runtime, f"import subprocess; subprocess.Popen([sys.executable, '-c', {evader!r}])")
    assert await moves(directory, 10), "it runs before the freeze"
    for _ in range(3):
        await place.engine.freeze(runtime)
        assert not await moves(directory, 0.2)
        await place.engine.thaw(runtime)
        assert await moves(directory, 10), "it goes on afterwards"


async def test_an_agent_whose_first_thread_has_ended_is_alive_until_it_is_stopped(place: Place) -> None:
    runtime = await place.start()
    directory = place.directory(runtime.lifetime)
    with contextlib.suppress(HTTPException, OSError):
        await run(runtime, f"os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {FIRST_THREAD_ENDS!r}])")
    assert await moves(directory, 10)
    assert await place.engine.is_alive(runtime)
    waiting = asyncio.create_task(place.engine.wait(runtime))
    await place.engine.stop(runtime, 0)
    assert (await waiting).reason == "killed"
    assert not await moves(directory, 0.2)
