"""The way from one event loop to the manager: found or started, greeted, then asked.

All handles used on a loop share one :class:`Connection`; the last one that lets go closes it. A request that may have
had an effect goes over a socket that was just seen to be alive, or over a new one: if that cannot connect, nothing was
done, and it is safe to start a manager and ask again; if it breaks later, it is never silently repeated.

The manager is this user's own, on its Unix socket, unless the environment names one behind a Jupyter server
(:mod:`.elsewhere`): the same requests then go there, with a token, and nothing is started here.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from yarl import URL

from .. import __version__
from ..errors import SandboxError, error, error_from_json
from . import elsewhere, spawn
from . import loop as loops
from .elsewhere import Elsewhere
from .wire import MAX_FRAME, SUBPROTOCOL

API_VERSION = "1.0"
"""The protocol's version that this client speaks (docs/protocol.md)."""

ANSWER_TIMEOUT = 60.0
"""Seconds that a manager may take for a request that only looks."""

CONNECT_TIMEOUT = 10.0
MAX_ANSWER = 64 * 1024**2
"""Bytes of a JSON answer."""

_HOST = "http://manager"
_ATTEMPTS = 3
_LOOK = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
PATIENT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
"""What works may take as long as it takes; who waits may interrupt."""


class Connection:
    """One loop's way to the manager. Use :meth:`acquire`, then :meth:`release` as often.

    Parameters
    ----------
    own:
        Ask this user's own manager, whatever the environment names.
    start:
        Whether a manager may be started where none answers. Who only watches starts none, and ends none either.
    """

    _of_loop: ClassVar[dict[asyncio.AbstractEventLoop, Connection]] = {}

    def __init__(self, *, own: bool = False, start: bool = True) -> None:
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeting = asyncio.Lock()
        self._own = own
        self._start = start
        self._target: Path | Elsewhere | None = None
        self._base = _HOST
        self._greeted = False
        self._looking: aiohttp.ClientSession | None = None
        self._acting: aiohttp.ClientSession | None = None

    @classmethod
    def acquire(cls) -> Connection:
        """The connection of the running loop, counted."""
        # No lock: every loop has a key of its own, and a lock could be inherited locked by a forked child.
        connection = cls._of_loop.setdefault(asyncio.get_running_loop(), cls())
        connection._users += 1
        for closed in [loop for loop in list(cls._of_loop) if loop.is_closed()]:
            connection._soon(cls._of_loop.pop(closed).close())  # Its handles were not closed before their loop was.
        return connection

    @classmethod
    def here(cls) -> Connection | None:
        """The connection of the running loop, if there is one."""
        return cls._of_loop.get(asyncio.get_running_loop())

    async def release(self) -> None:
        """Let go; the last one closes the sockets."""
        self._users -= 1
        if self._users <= 0:
            self._of_loop.pop(self._loop, None)
            await self.close()

    def release_soon(self) -> None:
        """As :meth:`release`, for a handle that was not closed; called on the loop."""
        self._soon(self.release())

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close every socket."""
        sessions = [session for session in (self._looking, self._acting) if session is not None]
        self._looking = self._acting = self._target = None
        self._greeted = False
        for session in sessions:
            await session.close()

    # --- asking ------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, path: str, *, repeatable: bool | None = None, **kwargs: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, and let the caller read the answer; an error answer is raised as our error.

        Parameters
        ----------
        repeatable:
            Whether asking twice does the same as asking once. Default: for GET.
        """
        repeatable = method == "GET" if repeatable is None else repeatable
        response = await self.send(method, path, repeatable=repeatable, **kwargs)
        try:
            if response.status >= 300:
                raise await _refusal(response)
            yield response
        except (aiohttp.ClientError, ConnectionError) as problem:
            raise _lost(method, problem) from problem
        except TimeoutError as problem:
            raise _silent() from problem
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def json(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        """Ask for a JSON object; an empty answer is ``{}``."""
        async with self.request(method, path, **kwargs) as response:
            return _object(await read_bounded(response, MAX_ANSWER))

    async def websocket(
        self, path: str, protocols: tuple[str, ...] = (SUBPROTOCOL,)
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket; by default a channel to a kernel.

        Raises
        ------
        aiohttp.WSServerHandshakeError
            The other side answered, but not with a WebSocket.
        """
        for _ in range(_ATTEMPTS):
            session, _acting = await self._sessions()
            try:
                return await session.ws_connect(
                    self._url(path), protocols=protocols, max_msg_size=MAX_FRAME, compress=0, autoping=True
                )
            except aiohttp.WSServerHandshakeError:
                raise
            except (aiohttp.ClientError, OSError):
                self._greeted = False  # Opening a channel has no effect: find the manager and try again.
        raise error("MANAGER_UNAVAILABLE")

    async def send(self, method: str, path: str, *, repeatable: bool, **kwargs: Any) -> aiohttp.ClientResponse:
        """As :meth:`request`, for who passes the answer on as it is, errors included, and closes it himself."""
        for _ in range(_ATTEMPTS):
            looking, acting = await self._sessions()
            session = looking if repeatable else acting
            if not repeatable:
                await _look_at_sockets()
            kwargs.setdefault("timeout", _LOOK if method == "GET" else PATIENT)
            try:
                return await session.request(method, self._url(path), allow_redirects=False, **kwargs)
            except TimeoutError as problem:
                raise _silent() from problem
            except aiohttp.ClientConnectorError:
                self._greeted = False  # Nothing was sent.
            except (aiohttp.ClientError, OSError) as problem:
                self._greeted = False
                if not repeatable:
                    raise _lost(method, problem) from problem
        raise error("MANAGER_UNAVAILABLE")

    def _url(self, path: str) -> URL:
        # As it stands: another spelling of the same path may not be the same for who routes it.
        return URL(self._base + path, encoded=True)

    # --- greeting ----------------------------------------------------------------------------------

    async def _sessions(self) -> tuple[aiohttp.ClientSession, aiohttp.ClientSession]:
        async with self._greeting:
            if not self._greeted:
                await self._greet()
            assert self._looking is not None
            assert self._acting is not None
            return self._looking, self._acting

    async def _greet(self) -> None:
        """Find or start a manager of a version that works with ours."""
        where = None if self._own else elsewhere.from_environment()
        version = await (self._version_there(where) if where else self._version_here())
        theirs = str(version.get("api"))
        if theirs.partition(".")[0] != API_VERSION.partition(".")[0]:
            raise _mismatch(version)
        self._greeted = True

    async def _version_there(self, where: Elsewhere) -> dict[str, Any]:
        await self._point_to(where)
        try:
            return await self._ask_version()
        except (aiohttp.ClientError, ConnectionError) as problem:
            raise error(
                "MANAGER_UNAVAILABLE",
                f"No Jupyter server answers at {where.url} ({type(problem).__name__}).",
                remedy=f"Start it, or correct {elsewhere.URL}.",
            ) from problem

    async def _version_here(self) -> dict[str, Any]:
        version = await self._version(spawn.find_socket())
        if self._start and _older(version.get("package"), __version__) and version.get("idle") is True:
            return await self._take_over(version)
        return version

    async def _version(self, path: Path) -> dict[str, Any]:
        for _ in range(_ATTEMPTS):
            await self._point_to(path)
            try:
                return await self._ask_version()
            except (aiohttp.ClientError, ConnectionError):
                if not self._start:
                    break
                path = await spawn.start_manager()
        raise error("MANAGER_UNAVAILABLE")

    async def _ask_version(self) -> dict[str, Any]:
        assert self._looking is not None
        timeout = aiohttp.ClientTimeout(total=CONNECT_TIMEOUT)
        try:
            async with self._looking.get(self._url("/version"), timeout=timeout, allow_redirects=False) as response:
                if response.status >= 300:
                    raise await _refusal(response)
                return _object(await read_bounded(response, MAX_ANSWER))
        except TimeoutError as problem:
            raise _silent() from problem

    async def _take_over(self, version: dict[str, Any]) -> dict[str, Any]:
        """Ask an older manager that does nothing to go, and start ours."""
        assert self._looking is not None
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with self._looking.post(_HOST + "/handover", json={"package": __version__}) as response:
                if response.status != 202:
                    return version
        if isinstance(pid := version.get("pid"), int):
            await spawn.wait_for_exit(pid, CONNECT_TIMEOUT)
        return await self._version(await spawn.start_manager())

    async def _point_to(self, target: Path | Elsewhere) -> None:
        if target == self._target and self._looking is not None:
            return
        await self.close()
        self._target = target
        self._base = target.url if isinstance(target, Elsewhere) else _HOST
        self._looking = _session(target, reuse=True)
        # Whether a connection over a network is still alive cannot be seen here.
        self._acting = _session(target, reuse=not isinstance(target, Elsewhere))
        self._acting._retry_connection = False  # aiohttp would repeat PUT and DELETE by itself


async def _look_at_sockets() -> None:
    """Have the loop take notice of idle sockets that have ended, so that none of them is used.

    It reads what is ready at the end of a turn, behind whatever was waiting for that turn: hence two. A manager
    keeps idle sockets open for much longer than aiohttp keeps them for a next use.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _session(target: Path | Elsewhere, *, reuse: bool) -> aiohttp.ClientSession:
    options: dict[str, Any] = {
        "headers": {"X-Sandbox-Client": f"{__version__} {API_VERSION}"},
        "cookie_jar": aiohttp.DummyCookieJar(),
        "auto_decompress": False,
        "timeout": PATIENT,
    }
    if isinstance(target, Elsewhere):
        return target.session(reuse=reuse, **options)
    connector = aiohttp.UnixConnector(path=os.fspath(target), limit=0, force_close=not reuse)
    return aiohttp.ClientSession(connector=connector, **options)


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body, if it has at most ``limit`` bytes; else ``TOO_LARGE``."""
    parts: list[bytes] = []
    left = limit
    async for part in response.content.iter_any():
        left -= len(part)
        if left < 0:
            raise error("TOO_LARGE", f"The answer has more than {limit} bytes.")
        parts.append(part)
    return b"".join(parts)


async def _refusal(response: aiohttp.ClientResponse) -> SandboxError:
    if response.status < 400:
        where = response.url.origin()
        return error("OUTPUT_INVALID", f"The server at {where} sent us elsewhere, and that is not followed.")
    try:
        body = json.loads(await read_bounded(response, MAX_ANSWER))
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict) and "error" in body:
        return error_from_json(body)
    if response.status in (401, 403):
        return error("LOGIN_REQUIRED")
    return error("OUTPUT_INVALID", f"The answer is {response.status}, without a reason.")


def _object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise error("OUTPUT_INVALID", f"The answer is not JSON: {problem}.") from problem
    if not isinstance(value, dict):
        raise error("OUTPUT_INVALID", "The answer is not a JSON object.")
    return value


def _lost(method: str, problem: BaseException) -> SandboxError:
    return error(
        "MANAGER_UNAVAILABLE",
        f"The sandbox manager went away before it answered ({type(problem).__name__}).",
        remedy="Try again." if method == "GET" else "It may or may not have been done: look, then try again.",
    )


def _silent() -> SandboxError:
    return error("MANAGER_UNAVAILABLE", "The sandbox manager took the request, but did not answer in time.")


def _mismatch(version: dict[str, Any]) -> SandboxError:
    theirs, api = str(version.get("package")), str(version.get("api"))
    if _older(theirs, __version__):
        remedy = "Destroy or stop its sandboxes, so that it can exit; the next call then starts a newer one."
    else:
        remedy = "Restart this kernel or script, so that it loads the newer jupyter_sandbox."
    return error(
        "VERSION_MISMATCH",
        f"This client is jupyter_sandbox {__version__} (API {API_VERSION}), "
        f"but the manager that runs is {theirs[:40]} (API {api[:40]}).",
        remedy=remedy,
        client=__version__,
        manager=theirs,
    )


def _older(theirs: object, ours: str) -> bool:
    return isinstance(theirs, str) and _numbers(theirs) < _numbers(ours)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]{1,9}(\.[0-9]{1,9})*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


async def _close_here() -> None:
    if (connection := Connection.here()) is not None:
        await connection.close()


def _close_at_exit() -> None:
    if loops.is_running():
        loops.run(_close_here())


atexit.register(_close_at_exit)
