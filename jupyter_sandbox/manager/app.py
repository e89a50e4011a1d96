"""The manager as a process: takes its place, serves, and goes when nobody needs it or somebody ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from aiohttp import web

from .. import paths
from ..engines.choose import available_engines, choose
from ..errors import SandboxError, error
from . import config, server
from .api import API, Api
from .engine_set import EngineSet, Factory
from .events import Events
from .images import Images
from .memory_pressure import MemoryPressure
from .place import Place
from .policy import Policy
from .principals import one_person
from .records import Records
from .recovery import remove_orphans, remove_stale_sockets
from .registry import Registry
from .services import Services, nothing_happens

log = logging.getLogger(__name__)

STOP_GRACE = 5.0
"""Seconds that sandboxes get to end when the manager is asked to end."""

Ready = Callable[[dict[str, object]], None]
Engines = Callable[[Path, tuple[int, int]], Mapping[str, Factory]]


def owner() -> str:
    """Who the sandboxes of this process belong to."""
    try:
        return f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"os:{os.getuid()}"


class Manager:
    """One run of the manager, from its place taken to its place left.

    Parameters
    ----------
    ready:
        Called once, when requests are answered.
    engines:
        What makes the engines, given the data directory and the uids for sandboxes; tests of failures bring their own.
    reached:
        See :class:`~.services.Services`.
    """

    def __init__(
        self,
        place: Place,
        ready: Ready,
        engines: Engines = available_engines,
        reached: Callable[[str], None] = nothing_happens,
    ) -> None:
        self._place = place
        self._ready = ready
        self._engines = engines
        self._reached = reached
        self._over = asyncio.Event()
        self._keep_sandboxes = False

    async def run(self) -> None:
        """Serve until the process is asked to end, hands over, or has been idle for ``idle_exit`` seconds."""
        settings = config.load()
        records = Records(self._place.data / "records.sqlite")
        await records.open()
        services = self._services(settings, records)
        registry = Registry(services)
        await registry.load()
        remove_stale_sockets(services.sockets, registry)
        api = Api(services, registry, self._hand_over)
        idle = IdleExit(settings.idle_exit, lambda: registry.in_memory or api.connected() > 0, self._over.set)
        self._end_on_signals()
        runner = await server.start(api, self._place.listen(API), idle.touch)
        self._come_back_on_sighup(runner)
        self._ready({"ready": True, "socket": str(paths.manager_socket())})
        orphans = asyncio.create_task(remove_orphans(services, registry))
        try:
            await self._over.wait()
        finally:
            idle.stop()
            orphans.cancel()
            self._place.hide()
            await self._end_sandboxes(registry)
            await runner.cleanup()
            await services.engines.close()
            await records.close()

    def _services(self, settings: config.SandboxManager, records: Records) -> Services:
        return Services(
            owner=owner(),
            records=records,
            engines=EngineSet(self._engines(self._place.data, settings.uid_range), choose, records),
            events=Events(),
            directory=self._place.data / "sandboxes",
            sockets=paths.runtime_dir(),
            defaults=settings.options(),
            memory=MemoryPressure(settings.reserve()),
            principals=one_person(owner()),
            images=Images(records, settings.images),
            policy=Policy(settings.rule()),
            reached=self._reached,
        )

    def _hand_over(self) -> None:
        self._keep_sandboxes = True
        # The answer to who asked goes out first.
        asyncio.get_running_loop().call_later(0.05, self._over.set)

    def _end_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._over.set)

    def _come_back_on_sighup(self, runner: web.AppRunner) -> None:
        """Listen anew when told that the socket is gone (see :meth:`.Place.call_back`)."""
        tasks: set[asyncio.Task[None]] = set()

        def come_back() -> None:
            if not self._over.is_set() and not self._place.is_shown:
                tasks.add(asyncio.create_task(server.listen(runner, self._place.listen(API))))

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, come_back)

    async def _end_sandboxes(self, registry: Registry) -> None:
        if self._keep_sandboxes:
            await registry.leave_all()
        else:
            await registry.stop_all("the sandbox manager was stopped", STOP_GRACE)


class IdleExit:
    """Ends the manager after a time in which nothing was in memory and nobody connected.

    Parameters
    ----------
    patience:
        That time, in seconds.
    """

    def __init__(self, patience: float, needed: Callable[[], bool], leave: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._needed = needed
        self._leave = leave
        self._last = self._loop.time()
        self._timer = self._loop.call_later(patience, self._check)

    def touch(self) -> None:
        """Somebody asked something just now."""
        self._last = self._loop.time()

    def stop(self) -> None:
        """Do not end it any more."""
        self._timer.cancel()

    def _check(self) -> None:
        if self._needed():
            self.touch()
        left = self._last + self._patience - self._loop.time()
        if left <= 0:
            log.info("nobody needs this manager: it exits")
            self._leave()
        else:
            self._timer = self._loop.call_later(left, self._check)


def main(place: Place, ready: Ready, engines: Engines = available_engines, **options: Callable[[str], None]) -> int:
    """Be the manager, if no other process is; return the exit code of the process."""
    try:
        if not place.take():
            ready({"running": True, "socket": place.call_back()})
            return 0
        asyncio.run(_run(place, ready, engines, **options))
    except SandboxError as exc:
        ready(exc.to_json())
        return 1
    except OSError as exc:
        ready(error("MANAGER_UNAVAILABLE", f"The sandbox manager cannot start: {exc}").to_json())
        return 1
    finally:
        place.leave()
    return 0


async def _run(place: Place, ready: Ready, engines: Engines, **options: Callable[[str], None]) -> None:
    await Manager(place, ready, engines, **options).run()
