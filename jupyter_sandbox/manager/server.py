"""The HTTP server on the manager's socket: who may connect, which versions work together, how errors are told."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from .. import __version__
from ..errors import SandboxError, error
from .api import API, Api

log = logging.getLogger(__name__)

_CLIENT_HEADER = "X-Sandbox-Client"
_UNVERSIONED = frozenset({"/version", "/handover"})
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)

_CALLER_GONE = 499
"""Status of an answer that nobody waits for any more; never sent."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def start(api: Api, listening: socket.socket, touched: Callable[[], None]) -> web.AppRunner:
    """Serve ``api`` on ``listening``; ``touched`` is called at the end of every request.

    Returns
    -------
    aiohttp.web.AppRunner
        To be cleaned up at the end.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_peer(request)
            _check_version(request)
            return await handler(request)
        except SandboxError as exc:
            return _answer(exc)
        except web.HTTPException as exc:
            return _answer(_of_aiohttp(request, exc))
        except (ConnectionError, TimeoutError) as exc:
            log.info("%s %s: the connection broke: %s", request.method, request.path, exc)
            if request.transport is not None and not request.transport.is_closing():
                request.transport.abort()  # an answer that has begun must not look whole
            return web.Response(status=_CALLER_GONE)  # nobody reads it; aiohttp notices that without a traceback
        except OSError as exc:
            return _answer(_of_the_system(exc))
        except Exception as exc:  # A fault of ours: the caller gets a plain sentence, the log gets the rest.
            log.exception("%s %s", request.method, request.match_info.route.resource)
            return _answer(error("INTERNAL", f"The manager failed: {type(exc).__name__}."))
        finally:
            touched()

    app = web.Application(middlewares=[guard], client_max_size=8 * 1024 * 1024)
    app.add_routes(api.routes())
    # A caller that goes away ends what it asked for: `exec` rests on it.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await listen(runner, listening)
    server = runner.server
    assert server is not None, "setup() has made it"
    api.connected = lambda: len(server.connections)
    return runner


async def listen(runner: web.AppRunner, listening: socket.socket) -> None:
    """Answer at one more socket."""
    await web.SockSite(runner, listening, backlog=1024).start()


def _check_peer(request: web.Request) -> None:
    """Only this user's own processes: the kernel says who connected."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None:
        raise ConnectionResetError("the caller went away")
    uid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
    if uid != os.getuid():
        raise error("SHARED_SERVER")


def _check_version(request: web.Request) -> None:
    said = request.headers.get(_CLIENT_HEADER, "").split()
    if len(said) != 2 or request.path in _UNVERSIONED or said[1].split(".")[0] == API.split(".")[0]:
        return
    raise error(
        "VERSION_MISMATCH",
        f"The client is {said[0][:40]} (API {said[1][:20]}), the manager is {__version__} (API {API}).",
    )


def _of_aiohttp(request: web.Request, exc: web.HTTPException) -> SandboxError:
    if exc.status == 413:
        return error("TOO_LARGE")
    if exc.status in (404, 405):
        return error("ROUTE_NOT_FOUND", f"There is no {request.method} {request.path[:200]}.")
    return error("INVALID_REQUEST", f"The request cannot be read: {exc.reason}.")


def _of_the_system(exc: OSError) -> SandboxError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return error("LIMIT_REACHED", f"The manager's disk is full: {exc}.", remedy="Make room, then try again.")
    log.error("the system refused the manager something", exc_info=exc)
    return error("INTERNAL", f"The manager failed: {exc}.")


def _answer(exc: SandboxError) -> web.Response:
    headers = {} if exc.retry_after is None else {"Retry-After": str(exc.retry_after)}
    return web.json_response(exc.to_json(), status=exc.http_status, headers=headers)
