"""The bubblewrap engine: a sandbox is a tree of processes in namespaces of its own, with no daemon behind it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from pathlib import Path

from ...errors import error
from ...models import Usage
from ...options import ResolvedLimits
from .. import cgroups, freezing, handoff, processes
from ..base import UID_RANGE, Ending, Engine, Probe, Progress, Runtime, StartSpec
from . import cpus, ending, files, found
from .handle import Handle
from .isolation import isolation
from .probe import probe
from .start import start

_REPORT = 2.0
"""Seconds that bwrap may take to follow its agent."""


class BubblewrapEngine(Engine):
    """Sandboxes made by bubblewrap.

    Parameters
    ----------
    agent:
        The agent's zipapp on the host.
    uid_range:
        First and last uid that sandboxes run as when we are root; an ordinary user runs them as himself.
    """

    name = "bubblewrap"

    def __init__(self, agent: Path, *, uid_range: tuple[int, int] = UID_RANGE) -> None:
        self._agent = agent
        self._uids = range(uid_range[0], uid_range[1] + 1)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._reapers: set[asyncio.Task[None]] = set()

    async def probe(self) -> Probe:
        """See :meth:`Engine.probe`."""
        return await probe(self._uids)

    async def start(self, spec: StartSpec, progress: Progress) -> Runtime:
        """See :meth:`Engine.start`."""
        if spec.network != "none":
            raise error(
                "NETWORK_UNAVAILABLE",
                "The bubblewrap engine has no network `internet` that is proven to be closed to this machine.",
                remedy="Use `network='none'`, or the engine 'docker'.",
            )
        try:
            async with asyncio.timeout(spec.timeout):
                process, handle = await start(spec, progress, self._agent, self._uids)
        except TimeoutError as exc:
            raise error("START_TIMEOUT", f"The sandbox was not ready within {spec.timeout:.0f} seconds.") from exc
        self._adopt(spec.runtime, process, handle)
        return Runtime(
            engine=self.name,
            lifetime=spec.lifetime,
            runtime=spec.runtime,
            socket=str(handle.socket),
            handle=handle.to_json(),
            isolation=isolation(handle.group, spec.limits),
        )

    def _adopt(self, runtime: str, process: subprocess.Popen[bytes], handle: Handle) -> None:
        """Reap the process when it ends, whoever waits for it."""

        async def reap() -> None:
            await handle.monitor.ended()
            process.wait()

        self._children[runtime] = process
        task = asyncio.create_task(reap())
        self._reapers.add(task)
        task.add_done_callback(self._reapers.discard)

    async def is_alive(self, runtime: Runtime) -> bool:
        """See :meth:`Engine.is_alive`."""
        return Handle.from_json(runtime.handle).alive()

    async def wait(self, runtime: Runtime) -> Ending:
        """See :meth:`Engine.wait`; why it ended is known in full only for our own children."""
        handle = Handle.from_json(runtime.handle)
        process = self._children.get(runtime.runtime)
        await handle.init.ended()
        await handle.monitor.ended()
        return ending.why(handle.group, None if process is None else process.wait())

    async def freeze(self, runtime: Runtime) -> None:
        """See :meth:`Engine.freeze`."""
        handle = self._living(runtime)
        if handle.group.has("freezer"):
            await handle.group.freeze()
        else:
            await freezing.freeze(handle.init, handle.stopped_before)

    async def thaw(self, runtime: Runtime) -> None:
        """See :meth:`Engine.thaw`."""
        handle = self._living(runtime)
        if handle.group.has("freezer"):
            await handle.group.thaw()
        else:
            freezing.thaw(handle.init, handle.stopped_before)

    def _living(self, runtime: Runtime) -> Handle:
        handle = Handle.from_json(runtime.handle)
        if not handle.alive():
            raise error("AGENT_UNREACHABLE", "The sandbox has ended.")
        return handle

    async def stop(self, runtime: Runtime, grace: float) -> None:
        """See :meth:`Engine.stop`; a frozen sandbox is thawed, so that it can end in order."""
        handle = Handle.from_json(runtime.handle)
        if grace > 0 and handle.alive():
            await self.thaw(runtime)
            await _ask_to_end(handle, grace)
        await found.kill(handle.init, handle.group)
        with contextlib.suppress(TimeoutError):
            # It ends by itself, and says how the agent ended.
            await asyncio.wait_for(handle.monitor.ended(), _REPORT)
        await found.kill(handle.monitor, cgroups.Group({}))
        await handle.group.remove()
        handoff.remove(handle.socket)
        handle.stopped_before.unlink(missing_ok=True)
        self._children.pop(runtime.runtime, None)

    async def destroy(self, lifetime: str, directory: Path) -> None:
        """See :meth:`Engine.destroy`."""
        await found.end(lifetime, self._uids)
        await asyncio.to_thread(files.delete, directory)

    async def usage(self, runtime: Runtime) -> Usage:
        """See :meth:`Engine.usage`; without control groups the sum over the living processes."""
        handle = Handle.from_json(runtime.handle)
        if not handle.alive():
            return Usage()
        if handle.group.has("memory"):
            return handle.group.usage()
        tree = processes.tree(handle.init.pid)
        return Usage(
            cpu_seconds=sum(one.cpu_seconds for one in tree),
            memory=sum(one.memory for one in tree),
            pids=sum(one.threads for one in tree),
        )

    async def set_limits(self, runtime: Runtime, limits: ResolvedLimits) -> None:
        """See :meth:`Engine.set_limits`; without control groups only the CPUs change at once."""
        handle = self._living(runtime)
        handle.group.limit(limits)
        if not handle.group.has("cpu"):
            cpus.pin(handle.init.pid, cpus.share(limits.cpus, runtime.lifetime))

    async def find(self, installation: str) -> set[str]:
        """See :meth:`Engine.find`."""
        return {one.lifetime for one in found.find(self._uids) if one.installation == installation}

    async def close(self) -> None:
        """See :meth:`Engine.close`."""
        for task in list(self._reapers):
            task.cancel()
        await asyncio.gather(*self._reapers, return_exceptions=True)
        for process in self._children.values():
            if process.poll() is None:
                process.returncode = 0  # it outlives us, as it should; Popen would warn of it


async def _ask_to_end(handle: Handle, grace: float) -> None:
    if handle.init.signal(signal.SIGTERM):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(handle.init.ended(), grace)
