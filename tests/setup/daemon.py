"""A Docker daemon for the tests: the one that answers, else our own, which is stopped again at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 60.0
"""Seconds in which a daemon has to answer, or to end."""


@contextlib.contextmanager
def running(log: Path) -> Iterator[bool]:
    """Yield whether a daemon answers; one that was started here, with its output in ``log``, ends afterwards."""
    if answers() or started_by_the_system():
        yield True
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        print("── no Docker daemon answers, and none can be started here: its tests will be skipped", flush=True)
        yield False
        return
    with log.open("ab") as output:
        daemon = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    print(f"── started dockerd (process {daemon.pid}), which writes to {log}", flush=True)
    try:
        if not (ready := wait_until_it_answers(daemon)):
            print("\n".join(log.read_text(errors="replace").splitlines()[-5:]), flush=True)
            print("── dockerd does not answer: its tests will be skipped", flush=True)
        yield ready
    finally:
        stop(daemon)


def answers() -> bool:
    """Whether a daemon answers to the Docker client of this machine."""
    if not shutil.which("docker"):
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(["docker", "version"], capture_output=True, timeout=20).returncode == 0
    return False


def started_by_the_system() -> bool:
    """Whether systemd, where it runs, has the daemon start and answer; it then stays, being the system's."""
    if os.geteuid() != 0 or not Path("/run/systemd/system").is_dir():
        return False
    return subprocess.run(["systemctl", "start", "docker"], stdin=subprocess.DEVNULL).returncode == 0 and answers()


def wait_until_it_answers(daemon: subprocess.Popen[bytes]) -> bool:
    """Whether ``daemon`` answers in time. Asked again and again: dockerd has no other way to say that it is ready."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and daemon.poll() is None:
        if answers():
            return True
        time.sleep(0.2)
    return False


def stop(daemon: subprocess.Popen[bytes]) -> None:
    """End ``daemon`` and its containers as it does it itself; by force if it will not."""
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
