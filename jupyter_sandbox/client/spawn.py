"""Finds the manager's socket, and starts the manager when none answers.

The manager is a process of its own session, so that neither Ctrl-C in a terminal nor the end of a notebook ends it.
Many processes may start one at the same time: a lock among clients makes all but the first find the one started.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from .. import paths
from ..errors import error, error_from_json
from .loop import background_loop, settle

START_TIMEOUT = 30.0
"""Seconds that a manager may take from its start to its ready line."""

_READY_LINE_MAX = 65536


def find_socket() -> Path:
    """Where the manager of this user answers, if it runs; what somebody else wrote is not believed."""
    try:
        with (paths.data_dir() / "manager.json").open() as file:
            if os.fstat(file.fileno()).st_uid == os.getuid():
                return Path(json.load(file)["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return paths.manager_socket()
    return paths.manager_socket()


def answers(path: Path) -> bool:
    """Whether somebody accepts connections at ``path``."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


async def start_manager() -> Path:
    """Start a manager unless one answers by now, and return its socket.

    Raises
    ------
    SandboxError
        What the manager says on its ready line, else ``MANAGER_UNAVAILABLE``.
    """
    async with _starting():
        path = find_socket()
        if answers(path):
            return path
        line = await _first_line(_spawn())
    if line:
        _check_ready(line)
    path = find_socket()
    if not answers(path):
        said = "ended before it was ready" if not line else f"is not at {path}"
        raise error("MANAGER_UNAVAILABLE", f"The sandbox manager was started, but {said}.")
    return path


@contextlib.asynccontextmanager
async def _starting() -> AsyncIterator[None]:
    """Hold the lock among clients that start a manager; waiting for it happens in a thread."""
    path = paths.runtime_dir() / "start.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await _lock_in_a_thread(file.fileno())
        yield


async def _lock_in_a_thread(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    locked: asyncio.Future[None] = loop.create_future()

    def lock() -> None:
        with contextlib.suppress(OSError, RuntimeError):  # Who waited has gone, with file or loop.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            loop.call_soon_threadsafe(settle, locked)

    threading.Thread(target=lock, name="jupyter_sandbox-start", daemon=True).start()
    await locked


def _spawn() -> int:
    """Start the manager and return the descriptor that its ready line comes from."""
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_sandbox.manager", "--ready-fd", str(writing)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(writing,),
        )
    except OSError as problem:
        os.close(reading)
        raise error("MANAGER_UNAVAILABLE", f"The sandbox manager could not be started: {problem}.") from problem
    finally:
        os.close(writing)
    _reap_when_it_ends(process)
    return reading


def _reap_when_it_ends(process: subprocess.Popen[bytes]) -> None:
    loop = background_loop()
    ended = os.pidfd_open(process.pid)

    def reap() -> None:
        loop.remove_reader(ended)
        os.close(ended)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)

    loop.call_soon_threadsafe(loop.add_reader, ended, reap)
    process.returncode = 0  # It outlives us: no "still running" when the object goes.


async def _first_line(descriptor: int) -> bytes:
    """What comes before the first newline, or before the end."""
    loop = asyncio.get_running_loop()
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        os.set_blocking(descriptor, False)
        line = b""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while b"\n" not in line and len(line) < _READY_LINE_MAX:
                    await _readable(loop, descriptor)
                    if not (part := pipe.read(4096)):
                        break
                    line += part
        except TimeoutError:
            raise error(
                "MANAGER_UNAVAILABLE", f"The sandbox manager was not ready within {START_TIMEOUT:.0f} seconds."
            ) from None
    return line.partition(b"\n")[0]


async def _readable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    waiter: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, settle, waiter)
    try:
        await waiter
    finally:
        loop.remove_reader(descriptor)


async def wait_for_exit(pid: int, seconds: float) -> None:
    """Return when process ``pid`` has ended, or after ``seconds``."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        async with asyncio.timeout(seconds):
            await _readable(asyncio.get_running_loop(), descriptor)
    except TimeoutError:
        return
    finally:
        os.close(descriptor)


def _check_ready(line: bytes) -> None:
    try:
        body = json.loads(line)
    except ValueError:
        return  # The line is a signal; what it says beyond an error is for people.
    if isinstance(body, dict) and "error" in body:
        raise error_from_json(body)
