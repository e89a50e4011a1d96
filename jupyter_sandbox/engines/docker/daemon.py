"""The Docker daemon as the engine talks to it: where it listens, calls on threads, and its errors as ours."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, NotFound

from ...errors import SandboxError, error

DEFAULT_HOST = "unix:///var/run/docker.sock"
CALL_TIMEOUT = 60
"""Seconds for one answer of the daemon, over what the call itself is asked to wait."""

_THREADS = 32
"""Calls at the same time; a `stop` holds a thread for its grace."""

_T = TypeVar("_T")


def configured_host() -> str:
    """Where the docker CLI of this user would look for the daemon: ``DOCKER_HOST``, its context, the default."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    try:
        context = ContextAPI.get_current_context()
        host = context.Host if context is not None else None
    except (DockerException, OSError, ValueError, AttributeError):  # a broken ~/.docker is not our failure
        host = None
    return (host or DEFAULT_HOST).replace("http+unix:///", "unix:///")


class Daemon:
    """Calls to one daemon, each on a thread with a client of its own.

    The SDK is synchronous, and its client is not safe to share: it closes evicted connection pools in use.

    Parameters
    ----------
    host:
        As in ``DOCKER_HOST``. Default: :func:`configured_host`.
    """

    def __init__(self, host: str | None = None) -> None:
        self.host = host or configured_host()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="jupyter-sandbox-docker")
        self._local = threading.local()
        self._clients: list[docker.APIClient] = []
        self._version: str | None = None
        self._info: Mapping[str, Any] | None = None

    async def call(self, work: Callable[[docker.APIClient], _T]) -> _T:
        """Run ``work(client)`` on a thread and return what it returns.

        A cancelled call is waited for all the same, so that who cleans up after it sees its effect.

        Raises
        ------
        SandboxError
            ``ENGINE_UNAVAILABLE`` when the daemon does not answer.
        docker.errors.APIError
            What the daemon refused; the caller knows what it means.
        """
        future = asyncio.get_running_loop().run_in_executor(self._threads, self.run, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            if not future.cancelled():
                future.exception()  # marks it as seen; the cancellation is what counts
            raise

    def run(self, work: Callable[[docker.APIClient], _T]) -> _T:
        """:meth:`call`, on the calling thread."""
        try:
            return work(self._client())
        except APIError:
            raise
        except (requests.exceptions.RequestException, DockerException) as exc:
            raise self._unavailable(exc) from exc

    async def info(self, *, fresh: bool = False) -> Mapping[str, Any]:
        """What ``docker info`` says, asked once unless ``fresh``.

        Raises
        ------
        SandboxError
            ``NOT_AVAILABLE_YET`` when the daemon does not share this machine's kernel.
        """
        if self._info is None or fresh:
            self._check_host()
            info: Mapping[str, Any] = await self.call(lambda client: client.info())
            _check_kernel(info, self.host)
            self._info = info
        return self._info

    def close(self) -> None:
        """Close the clients; containers go on."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.close()

    def new_client(self) -> docker.APIClient:
        """A client for a thread that is not of the pool; who asks closes it."""
        client = docker.APIClient(base_url=self.host, version=self._version or "auto", timeout=CALL_TIMEOUT)
        self._version = client.api_version
        return client

    def _client(self) -> docker.APIClient:
        client: docker.APIClient | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self.new_client()
            self._clients.append(client)
        return client

    def _check_host(self) -> None:
        if not self.host.startswith("unix://"):
            raise _not_shared(f"The Docker daemon at {self.host} is not on this machine.")

    def _unavailable(self, exc: Exception) -> SandboxError:
        path = Path(self.host.removeprefix("unix://"))
        if path.exists() and not os.access(path, os.W_OK):
            return error(
                "ENGINE_UNAVAILABLE",
                f"Docker's socket {path} may not be used by this user.",
                remedy="Add the user to the group that owns it (mostly `docker`), log in anew, and try again.",
            )
        why = first_line(exc) if path.exists() else "there is no such socket"
        return error(
            "ENGINE_UNAVAILABLE",
            f"The Docker daemon at {self.host} does not answer ({why}).",
            remedy="Start it (`systemctl start docker`) or correct DOCKER_HOST, then try again; nothing is lost.",
        )


def first_line(exc: Exception) -> str:
    """What the daemon said, as one line of at most 300 characters."""
    text = str(exc.explanation or exc) if isinstance(exc, APIError) else str(exc)
    return (text.strip().splitlines() or [type(exc).__name__])[0][:300]


def whole_seconds(seconds: float) -> int:
    """Rounded up: the daemon takes whole seconds."""
    return max(0, math.ceil(seconds))


def absent_is_fine(work: Callable[[], object]) -> None:
    """Run ``work``; that its object is gone already is what it wanted."""
    try:
        work()
    except NotFound:
        return


def _check_kernel(info: Mapping[str, Any], host: str) -> None:
    system = str(info.get("OperatingSystem", ""))
    if "docker desktop" in system.lower():
        raise _not_shared("Docker Desktop runs containers in a virtual machine of its own.")
    theirs, ours = str(info.get("KernelVersion", "")), os.uname().release
    if info.get("OSType") != "linux" or theirs != ours:
        raise _not_shared(
            f"The Docker daemon at {host} runs on another kernel ({theirs or system}) than this ({ours})."
        )


def _not_shared(message: str) -> SandboxError:
    return error(
        "NOT_AVAILABLE_YET",
        message,
        remedy="Sandboxes need a Docker Engine on this very machine for now; or use the engine 'bubblewrap'.",
    )
