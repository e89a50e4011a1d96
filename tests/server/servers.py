"""A real Jupyter server in a thread of this process, so that a test can use it like anybody, and look into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from jupyter_server.serverapp import ServerApp
from tornado.routing import Rule
from yarl import URL

T = TypeVar("T")

TOKEN = "token-of-the-jupyter-server"
BASE = "/a%40b/"


class Server:
    """One server; ``url`` ends with a slash."""

    def __init__(self, root: Path, settings: dict[str, Any]) -> None:
        self.root = root
        self._settings = settings
        self._ready = threading.Event()
        self._problem: BaseException | None = None
        self.app: ServerApp
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.app.port}{BASE}"

    @property
    def api(self) -> str:
        return self.url + "sandbox/api"

    def at(self, path: str) -> URL:
        """A URL below our API, as it stands: aiohttp would write the percent signs of the base otherwise."""
        return URL(self.api + path, encoded=True)

    @property
    def rules(self) -> list[Rule]:
        """Our own rules in the router of the server."""
        groups = [rule.target for rule in self.app.web_app.default_router.rules]
        groups.append(self.app.web_app.wildcard_router)
        every = [rule for group in groups for rule in getattr(group, "rules", ())]
        return [rule for rule in every if rule.target.__module__.startswith("jupyter_sandbox.")]

    def client(self, **headers: str) -> aiohttp.ClientSession:
        """A session of somebody with the token."""
        return self.stranger(Authorization=f"token {TOKEN}", **headers)

    def stranger(self, **headers: str) -> aiohttp.ClientSession:
        """A session of somebody without any credential; a refused upload costs its connection."""
        connector = aiohttp.TCPConnector(force_close=True)
        return aiohttp.ClientSession(connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=60))

    def here(self, function: Callable[[], T]) -> T:
        """Call something on the server's own loop."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="jupyter server of the test")
        thread.start()
        self._ready.wait(60)
        try:
            if self._problem:
                raise self._problem
            yield self
        finally:
            if self._problem is None:
                self._loop.call_soon_threadsafe(self._over.set)
            thread.join(60)
            ServerApp.clear_instance()

    async def _run(self) -> None:
        try:
            self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
            await self._start()
        except BaseException as problem:  # the test is told, instead of waiting
            self._problem = problem
            return
        finally:
            self._ready.set()
        await self._over.wait()
        await self.app._cleanup()
        self.app.http_server.stop()
        await self.app.http_server.close_all_connections()
        self.app.session_manager.close()

    async def _start(self) -> None:
        settings: dict[str, Any] = {
            "allow_root": True,
            "allow_unauthenticated_access": False,
            "base_url": BASE,
            "ip": "127.0.0.1",
            "jpserver_extensions": {"jupyter_sandbox": True},
            "open_browser": False,
            "port": 0,
            "root_dir": str(self.root),
            **self._settings,
        }
        self.app = ServerApp.instance(**settings)
        self.app.init_signal = lambda: None
        self.app.initialize(argv=["--log-level=ERROR", f"--IdentityProvider.token={TOKEN}"], find_extensions=False)
        self.app.start_app()
        await self.app.extension_manager.start_all_extensions()
