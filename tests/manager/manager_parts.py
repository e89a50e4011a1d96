"""A manager to talk to: its parts in the test's own loop, or as a process that a test may kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import ClientWebSocketResponse

from jupyter_sandbox.engines.base import Engine
from jupyter_sandbox.manager import server
from jupyter_sandbox.manager.actor import Actor
from jupyter_sandbox.manager.api import Api
from jupyter_sandbox.manager.engine_set import EngineSet
from jupyter_sandbox.manager.events import Events
from jupyter_sandbox.manager.images import Images
from jupyter_sandbox.manager.memory_pressure import MemoryPressure
from jupyter_sandbox.manager.policy import Policy, Rule, no_ceilings
from jupyter_sandbox.manager.principals import one_person
from jupyter_sandbox.manager.records import Records
from jupyter_sandbox.manager.registry import Registry
from jupyter_sandbox.manager.services import Services
from jupyter_sandbox.options import SandboxOptions

sys.path.insert(0, str(Path(__file__).parent))

SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
MINE = "http://manager/sandboxes/-/"


class Caller:
    """Asks a manager as the client does, and as nobody should."""

    def __init__(self, path: Path) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=str(path), limit=0), auto_decompress=False
        )

    async def ask(self, method: str, path: str, body: object = None, **kwargs: Any) -> tuple[int, Any]:
        """Status and JSON of an answer; a stream of lines is a list."""
        url = path if path.startswith("http") else MINE + path
        async with self.session.request(method, url, json=body, **kwargs) as answer:
            text = await answer.text()
            lines = [json.loads(line) for line in text.splitlines()] if text else [None]
            return answer.status, lines if "ndjson" in answer.headers.get("Content-Type", "") else lines[0]

    async def put(self, sandbox_id: str, **options: object) -> tuple[int, Any]:
        """Get or create, and start."""
        return await self.ask("PUT", sandbox_id, {"options": options})

    async def exec(self, sandbox_id: str, command: str) -> tuple[int, Any]:
        """Ask the stand-in agent for something."""
        return await self.ask("POST", f"{sandbox_id}/agent/exec", {"command": command})

    async def state(self, sandbox_id: str) -> str:
        """Its state, without waking it."""
        status, body = await self.ask("GET", sandbox_id)
        return str(body["sandbox"]["state"]) if status == 200 else body["error"]["code"]

    async def agent_status(self, sandbox_id: str) -> dict[str, Any]:
        """What the stand-in agent has seen."""
        return dict((await self.ask("GET", f"{sandbox_id}/agent/status"))[1])

    async def channel(self, sandbox_id: str, kernel: str = "k") -> ClientWebSocketResponse:
        """A WebSocket to the stand-in's kernel."""
        url = f"{MINE}{sandbox_id}/agent/api/kernels/{kernel}/channels"
        return await self.session.ws_connect(url, protocols=(SUBPROTOCOL,), max_msg_size=0)


@dataclass
class InProcess:
    """All parts of a manager but its process."""

    engine: Any
    services: Services
    registry: Registry
    caller: Caller
    handovers: list[bool] = field(default_factory=list)

    def actor(self, sandbox_id: str) -> Actor:
        return self.registry._actors[(self.services.owner, sandbox_id)]


@contextlib.asynccontextmanager
async def serving(
    place: Path,
    engine: Engine,
    defaults: SandboxOptions | None = None,
    memory: MemoryPressure | None = None,
    rule: Rule = no_ceilings,
    images: tuple[str, ...] = (),
) -> AsyncIterator[InProcess]:
    """A manager in this loop whose sandboxes are those of ``engine``; all are destroyed at the end."""
    records = Records(place / "records.sqlite")
    await records.open()

    async def choose(_: object) -> str:
        return "bubblewrap"

    services = Services(
        owner="os:test",
        records=records,
        engines=EngineSet({"bubblewrap": lambda: engine}, choose, records),
        events=Events(),
        directory=place / "sandboxes",
        sockets=place,
        defaults=defaults or SandboxOptions(),
        memory=memory or MemoryPressure(0),
        principals=one_person("os:test"),
        images=Images(records, images),
        policy=Policy(rule),
    )
    registry = Registry(services)
    await registry.load()
    handovers: list[bool] = []
    api = Api(services, registry, lambda: handovers.append(True))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place / "m.sock"))
    runner = await server.start(api, listening, lambda: None)
    caller = Caller(place / "m.sock")
    try:
        yield InProcess(engine, services, registry, caller, handovers)
    finally:
        await caller.session.close()
        for actor in list(registry.all()):
            await actor.destroy()
        await runner.cleanup()
        await records.close()
        (place / "m.sock").unlink()


class ManagerProcess:
    """A manager of its own process, which may be killed and started again."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environment = {
            **os.environ,
            "JUPYTER_DATA_DIR": str(place / "d"),
            "JUPYTER_CONFIG_DIR": str(place / "c"),
            "XDG_RUNTIME_DIR": str(place / "r"),
        }
        (place / "r").mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}
        self.caller: Caller | None = None

    async def start(self, *words: str, die_at: str = "", **variables: str) -> dict[str, Any]:
        """Start it, and return its ready line; ``words``: the program, default the one with plain processes."""
        reading, writing = os.pipe()
        words = words or (str(Path(__file__).with_name("run_manager.py")),)
        self.process = subprocess.Popen(
            [sys.executable, *(word.replace("FD", str(writing)) for word in (*words, "FD"))],
            pass_fds=[writing],
            env={**self.environment, "JSBTEST_DIE_AT": die_at, **variables},
            start_new_session=True,
        )
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            self.ready = json.loads(await asyncio.to_thread(pipe.readline) or b"{}")
        if "socket" in self.ready:
            await self.let_go()
            self.caller = Caller(Path(self.ready["socket"]))
        return self.ready

    async def end(self, number: int) -> int:
        """Signal it, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return await self.wait()

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 20)

    async def let_go(self) -> None:
        """Close the connections to it."""
        if self.caller is not None:
            await self.caller.session.close()

    @property
    def data(self) -> Path:
        """Its data directory."""
        return next((self.place / "d" / "sandbox").iterdir())
