"""The agent's table of routes, and its life: serve until told to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any, List, Optional, Tuple

from tornado.httpserver import HTTPServer
from tornado.web import Application

from . import sockets
from .channels import ChannelsHandler
from .commands import ExecHandler
from .environment import Environment
from .file_routes import FileActionHandler, FilesHandler
from .handoff import Handoff
from .kernel_routes import KernelActionHandler, KernelHandler, KernelsHandler, KernelSpecsHandler
from .kernels import Kernels
from .launch import Launch
from .spawning import Spawner
from .status import EnvHandler, StatusHandler, identity
from .web import Agent, Unknown, settle
from .wire import FRAME_MAX

MAX_JSON = 128 * 2**20
"""Bytes of a request's body, where it is JSON; ``/exec`` has its whole stdin in it."""

ROUTES: List[Tuple[str, Any]] = [
    (r"/status", StatusHandler),
    (r"/env", EnvHandler),
    (r"/exec", ExecHandler),
    (r"/files", FilesHandler),
    (r"/files/(move|mkdir)", FileActionHandler),
    (r"/api/kernelspecs", KernelSpecsHandler),
    (r"/api/kernelspecs/([^/]+)", KernelSpecsHandler),
    (r"/api/kernels", KernelsHandler),
    (r"/api/kernels/([^/]+)", KernelHandler),
    (r"/api/kernels/([^/]+)/(interrupt|restart)", KernelActionHandler),
    (r"/api/kernels/([^/]+)/channels", ChannelsHandler),
    (r".*", Unknown),
]


def run(handoff: Handoff, environment: Environment, spawner: Spawner, first: Optional[Launch]) -> int:
    """Serve on the socket of the hand-off until SIGTERM or SIGINT; the exit code."""
    asyncio.run(_serve(handoff, environment, spawner, first))
    return 0


async def _serve(handoff: Handoff, environment: Environment, spawner: Spawner, first: Optional[Launch]) -> None:
    kernels = Kernels(environment, spawner, first)
    agent = Agent(handoff.runtime, environment, spawner, kernels)
    application = Application(
        [(path, handler, {"agent": agent}) for path, handler in ROUTES],
        log_function=lambda _handler: None,
        websocket_max_message_size=FRAME_MAX,
    )
    server = HTTPServer(application, max_body_size=MAX_JSON, max_buffer_size=MAX_JSON)
    handoff.listener.setblocking(False)
    server.add_socket(handoff.listener)
    told = _told_to_end()
    handoff.answer({"ready": True, **identity()})
    await told
    server.stop()
    await kernels.shutdown_all()
    spawner.close()
    sockets.close_all()


def _told_to_end() -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, settle, told)
    loop.add_signal_handler(signal.SIGCHLD, _reap)
    return told


def _reap() -> None:
    """The agent's only children are its spawner and, as process 1, orphans: it waits for none of them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
