"""Engines that make failures happen, named for them. Their sandboxes are plain processes: nothing is isolated.

They prove nothing about real engines (tests/engines does): only what a manager makes of what an engine may do.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from jupyter_sandbox.engines import handoff
from jupyter_sandbox.engines.base import Ending, Engine, Probe, Progress, Runtime, StartSpec
from jupyter_sandbox.errors import error
from jupyter_sandbox.models import Usage
from jupyter_sandbox.options import ResolvedLimits

AGENT = Path(__file__).with_name("stand_in_agent.py")
_MARK = "JSBTEST_INSTALLATION"


class EngineOfPlainProcesses(Engine):
    """Starts the stand-in agent as a child that outlives the manager; freezes with SIGSTOP."""

    name: ClassVar[str] = "bubblewrap"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.limits: ResolvedLimits | None = None

    async def probe(self) -> Probe:
        return Probe(True)

    async def start(self, spec: StartSpec, progress: Progress) -> Runtime:
        self.calls.append("start")
        progress("container")
        await self._kill_all(spec.lifetime)
        path = spec.sockets / f"{spec.runtime[:8]}.sock"
        with handoff.listener(path) as listening:
            process = subprocess.Popen(
                [sys.executable, str(AGENT), str(listening.fileno()), spec.runtime],
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={"PATH": os.environ["PATH"], _MARK: spec.installation, "LIFETIME": spec.lifetime},
            )
        (spec.directory / "file").write_text("kept")
        progress("agent")
        handle = {"pid": process.pid, "began": _began(process.pid)}
        return Runtime(engine=self.name, lifetime=spec.lifetime, runtime=spec.runtime, socket=str(path), handle=handle)

    async def is_alive(self, runtime: Runtime) -> bool:
        return _began(runtime.handle["pid"]) == runtime.handle["began"]

    async def wait(self, runtime: Runtime) -> Ending:
        while await self.is_alive(runtime):
            await asyncio.sleep(0.02)
        return Ending("exited", "it exited of itself")

    async def freeze(self, runtime: Runtime) -> None:
        self.calls.append("freeze")
        self._signal(runtime, signal.SIGSTOP)

    async def thaw(self, runtime: Runtime) -> None:
        self.calls.append("thaw")
        self._signal(runtime, signal.SIGCONT)

    async def stop(self, runtime: Runtime, grace: float) -> None:
        self.calls.append("stop")
        if await self.is_alive(runtime):
            self._signal(runtime, signal.SIGKILL)
            await self.wait(runtime)
        Path(runtime.socket).unlink(missing_ok=True)

    async def destroy(self, lifetime: str, directory: Path) -> None:
        self.calls.append("destroy")
        await self._kill_all(lifetime)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def usage(self, runtime: Runtime) -> Usage:
        return Usage(pids=1)

    async def set_limits(self, runtime: Runtime, limits: ResolvedLimits) -> None:
        self.limits = limits

    async def find(self, installation: str) -> set[str]:
        return {found["LIFETIME"] for found in _ours().values() if found.get(_MARK) == installation}

    def _signal(self, runtime: Runtime, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(runtime.handle["pid"], number)

    async def _kill_all(self, lifetime: str) -> None:
        for pid, found in _ours().items():
            if found.get("LIFETIME") == lifetime:
                os.kill(pid, signal.SIGKILL)
                while _began(pid) is not None:
                    await asyncio.sleep(0.01)


class EngineSlowToStart(EngineOfPlainProcesses):
    """Starts only once ``go`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.asked = asyncio.Event()

    async def start(self, spec: StartSpec, progress: Progress) -> Runtime:
        self.asked.set()
        await self.go.wait()
        return await super().start(spec, progress)


class EngineThatFailsToStart(EngineOfPlainProcesses):
    """Fails as often as ``failures`` says, then starts."""

    failures = 1

    async def start(self, spec: StartSpec, progress: Progress) -> Runtime:
        await asyncio.sleep(0)
        if self.failures > 0:
            self.failures -= 1
            self.calls.append("start")
            raise error("IMAGE_MISSING")
        return await super().start(spec, progress)


class EngineWithImages(EngineThatFailsToStart):
    """Has whatever image it is asked for, until ``moved`` says that a name stands for another one."""

    default_image = "usual:1"
    failures = 0

    def __init__(self) -> None:
        super().__init__()
        self.moved: dict[str, str] = {}
        self.started: list[str | None] = []

    async def image_id(self, name: str) -> str:
        return self.moved.get(name, f"sha256:first-{name}")

    async def start(self, spec: StartSpec, progress: Progress) -> Runtime:
        self.started.append(spec.image)
        return await super().start(spec, progress)


class EngineThatForgetsContainers(EngineOfPlainProcesses):
    """Does not notice that a runtime ends: its wait never returns."""

    async def wait(self, runtime: Runtime) -> Ending:
        return await asyncio.get_running_loop().create_future()


class EngineThatFailsToDestroy(EngineOfPlainProcesses):
    """Its daemon does not answer the first time that something is to be destroyed."""

    down = True

    async def destroy(self, lifetime: str, directory: Path) -> None:
        if self.down:
            self.down = False
            raise error("ENGINE_UNAVAILABLE")
        await super().destroy(lifetime, directory)


class EngineThatFailsToFreeze(EngineOfPlainProcesses):
    """Cannot freeze."""

    async def freeze(self, runtime: Runtime) -> None:
        self.calls.append("freeze")
        raise error("ENGINE_UNAVAILABLE")


def _began(pid: int) -> str | None:
    """When a process began, in ticks since boot; None if there is none, or only a zombie, which is then reaped."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _ours() -> dict[int, dict[str, str]]:
    """The environments of all processes that these engines started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"{_MARK}=" in text:
            found[int(path.parent.name)] = dict(item.split("=", 1) for item in text.split("\0") if "=" in item)
    return found
