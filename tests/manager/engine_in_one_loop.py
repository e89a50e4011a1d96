"""A fake engine for the state machine of the manager: its sandboxes are tiny servers in the loop of the test.

Nothing is isolated and nothing is started, so that thousands of steps take seconds, and time is what the test says.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from jupyter_sandbox.engines.base import Ending, Engine, Probe, Progress, Runtime, StartSpec
from jupyter_sandbox.errors import error
from jupyter_sandbox.models import Usage
from jupyter_sandbox.options import ResolvedLimits


class LoopWithItsOwnClock(asyncio.SelectorEventLoop):
    """Time passes only when the test moves ``now``."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Place:
    """One runtime: answers as an agent as long as it lives, and not while it is frozen."""

    def __init__(self, runtime: str, path: Path) -> None:
        self.runtime = runtime
        self.path = path
        self.busy = False
        self.variable: int | None = None
        self.awake = asyncio.Event()
        self.awake.set()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def serve(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self.path)

    def end(self) -> None:
        """As if its processes were killed."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        if not self.ended.done():
            self.ended.set_result(None)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
                await reader.readexactly(int(fields.get("content-length", 0)))
                await self.awake.wait()
                writer.write(self._answer(head.split(b" ")[0]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, method: bytes) -> bytes:
        if method == b"PUT":
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        busy = [{"kind": "exec", "name": "told so"}] if self.busy else []
        body = json.dumps({"runtime": self.runtime, "busy": busy, "contexts": []}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class EngineInOneLoop(Engine):
    """Fails once at the step that ``faults`` names for a lifetime, before it does anything."""

    name: ClassVar[str] = "bubblewrap"

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.faults: dict[str, str] = {}
        self.calls: Counter[str] = Counter()

    async def probe(self) -> Probe:
        return Probe(True)

    async def start(self, spec: StartSpec, progress: Progress) -> Runtime:
        self._end(spec.lifetime)
        self._step("start", spec.lifetime)
        place = self.places[spec.lifetime] = Place(spec.runtime, spec.sockets / f"{spec.runtime[:12]}.sock")
        await place.serve()
        (spec.directory / "file").touch()
        return Runtime(
            engine=self.name, lifetime=spec.lifetime, runtime=spec.runtime, socket=str(place.path), handle={}
        )

    async def is_alive(self, runtime: Runtime) -> bool:
        place = self.places.get(runtime.lifetime)
        return place is not None and place.runtime == runtime.runtime

    async def wait(self, runtime: Runtime) -> Ending:
        if await self.is_alive(runtime):
            await asyncio.shield(self.places[runtime.lifetime].ended)
        return Ending("exited", "it exited of itself")

    async def freeze(self, runtime: Runtime) -> None:
        self._step("freeze", runtime.lifetime)
        self.places[runtime.lifetime].awake.clear()

    async def thaw(self, runtime: Runtime) -> None:
        self._step("thaw", runtime.lifetime)
        self.places[runtime.lifetime].awake.set()

    async def stop(self, runtime: Runtime, grace: float) -> None:
        self._step("stop", runtime.lifetime)
        self._end(runtime.lifetime)

    async def destroy(self, lifetime: str, directory: Path) -> None:
        self._step("destroy", lifetime)
        self._end(lifetime)

    async def usage(self, runtime: Runtime) -> Usage:
        return Usage()

    async def set_limits(self, runtime: Runtime, limits: ResolvedLimits) -> None:
        return

    async def find(self, installation: str) -> set[str]:
        return set(self.places)

    def kill(self, lifetime: str) -> None:
        """The runtime of a lifetime ends by itself."""
        self._end(lifetime)

    def _end(self, lifetime: str) -> None:
        place = self.places.pop(lifetime, None)
        if place is not None:
            place.end()

    def _step(self, name: str, lifetime: str) -> None:
        self.calls[name] += 1
        if self.faults.get(lifetime) == name:
            del self.faults[lifetime]
            raise error("ENGINE_UNAVAILABLE", f"The fake engine fails at {name}.")


def facts(place: Place | None) -> dict[str, Any] | None:
    """What a test compares of a place."""
    return None if place is None else {"frozen": not place.awake.is_set(), "variable": place.variable}
