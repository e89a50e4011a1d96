"""When a container has ended and why: for a runtime that ran, and for one that never became ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

import docker
import requests
from docker.errors import APIError, NotFound

from ...errors import SandboxError, error
from .. import processes
from ..base import Ending
from .daemon import Daemon

NO_PYTHON = (126, 127)
"""Exit codes of the container's init when it cannot run the program."""

_SIGKILLED = 128 + 9
_NOTICE_SECONDS = 10
"""The daemon notices the end of a container milliseconds after the kernel does."""

_POLL_SECONDS = 20
"""How long a thread that waits by the API may outlive whoever asked."""


def handle_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What tells this start of a container from every other: the ``handle`` of its runtime."""
    state = found["State"]
    return {
        "container": found["Id"],
        "started_at": state["StartedAt"],
        "pid": state["Pid"],
        "boot": processes.boot_id(),
    }


def is_same(found: Mapping[str, Any], handle: Mapping[str, Any]) -> bool:
    """Whether the inspected container ``found`` runs, or is frozen, in just the start that ``handle`` tells of."""
    state = found["State"]
    return bool(state["Running"]) and state["StartedAt"] == handle["started_at"]


async def inspect(daemon: Daemon, container: str) -> Mapping[str, Any] | None:
    """The inspected container; None if there is none."""
    try:
        found: Mapping[str, Any] = await daemon.call(lambda client: client.inspect_container(container))
    except NotFound:
        return None
    return found


async def is_running(daemon: Daemon, handle: Mapping[str, Any]) -> bool:
    """Whether exactly the start that ``handle`` tells of still runs, or is frozen."""
    if handle.get("boot") != processes.boot_id():
        return False
    found = await inspect(daemon, handle["container"])
    return found is not None and is_same(found, handle)


async def until_ended(daemon: Daemon, handle: Mapping[str, Any]) -> None:
    """Return when that start of the container has ended, at once if it has already."""
    pidfd = _watch(handle["pid"])
    try:
        # Asked after the pidfd is open: from here on it cannot be another process with the same pid.
        if not await is_running(daemon, handle):
            return
        if pidfd is not None:
            await processes.readable(pidfd)
        else:
            await _wait_on_a_thread(daemon, handle["container"])
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _watch(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid) if pid > 0 else None
    except OSError:  # gone, or not to be seen from here
        return None


async def why(daemon: Daemon, handle: Mapping[str, Any]) -> Ending:
    """Why the start that ``handle`` tells of has ended."""
    found = await _after_the_end(daemon, handle)
    if found is None:
        return Ending("removed", "its container was removed")
    state = found["State"]
    if state["StartedAt"] != handle["started_at"] or handle.get("boot") != processes.boot_id():
        return Ending("unknown", "it ended while nobody looked")
    code = int(state["ExitCode"])
    if state.get("OOMKilled") and code == _SIGKILLED:
        return Ending("out_of_memory", "it ran out of memory")
    if code > 128:
        return Ending("killed", f"it was killed (signal {code - 128})")
    return Ending("exited", f"its agent ended with exit code {code}")


async def why_not_ready(daemon: Daemon, handle: Mapping[str, Any]) -> SandboxError:
    """The error for a container that ended before its agent was ready, with the last that it said."""
    found = await _after_the_end(daemon, handle)
    if found is None:
        return error("START_FAILED", "The container was removed before its agent was ready.")
    state = found["State"]
    if state.get("OOMKilled"):
        return error("OUT_OF_MEMORY", "The sandbox ran out of memory before it was ready.")
    if state["ExitCode"] in NO_PYTHON:
        return error("IMAGE_NOT_USABLE", "The image has no python3 that uid 1000 can run.")
    said = await daemon.call(lambda client: _last_line(client, found["Id"]))
    return error(
        "START_FAILED",
        f"The agent of the sandbox ended with exit code {state['ExitCode']} before it was ready"
        + (f": {said}" if said else "."),
        exit_code=state["ExitCode"],
    )


async def _after_the_end(daemon: Daemon, handle: Mapping[str, Any]) -> Mapping[str, Any] | None:
    def work(client: docker.APIClient) -> Mapping[str, Any]:
        found: Mapping[str, Any] = client.inspect_container(handle["container"])
        if is_same(found, handle):
            with contextlib.suppress(requests.exceptions.RequestException):
                client.wait(handle["container"], timeout=_NOTICE_SECONDS)
            found = client.inspect_container(handle["container"])
        return found

    try:
        return await daemon.call(work)
    except NotFound:
        return None


def _last_line(client: docker.APIClient, container: str) -> str:
    try:
        text = client.logs(container, tail=20).decode(errors="replace")
    except APIError:  # the reason is a courtesy
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


async def _wait_on_a_thread(daemon: Daemon, container: str) -> None:
    """Wait by the API: the container's process is not to be seen from here (another PID namespace).

    On a thread of its own, because it lasts as long as the container: the pool would run dry.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    left = threading.Event()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def wait() -> None:
        while not left.is_set():
            try:
                with contextlib.closing(daemon.new_client()) as client:
                    client.wait(container, timeout=_POLL_SECONDS)
                break
            except requests.exceptions.ReadTimeout:
                continue
            except (requests.exceptions.RequestException, docker.errors.DockerException):
                break  # whoever awaits asks the daemon next, and tells its absence from the end
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=wait, name="jupyter-sandbox-docker-wait", daemon=True).start()
    try:
        await done
    finally:
        left.set()
