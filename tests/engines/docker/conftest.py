"""Lifetimes on a real daemon with a stand-in agent, and the search for what they leave behind."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from jupyter_sandbox.engines.base import Interpreter, Runtime, StartSpec
from jupyter_sandbox.engines.docker import DockerEngine
from jupyter_sandbox.engines.docker.engine import DEFAULT_IMAGE
from jupyter_sandbox.ids import opaque
from jupyter_sandbox.options import MIB, ResolvedLimits

STAND_IN = Path(__file__).with_name("stand_in_agent.py")


@dataclass
class Place:
    """One lifetime of a test: its ids, its directories, and what its manager would do."""

    engine: DockerEngine
    root: Path
    installation: str
    lifetime: str = field(default_factory=opaque)

    @property
    def name(self) -> str:
        return f"jsb-{self.lifetime}"

    @property
    def sockets(self) -> Path:
        return self.root / "s"

    @property
    def directory(self) -> Path:
        return self.root / self.lifetime

    def spec(self, *, env: dict[str, str] | None = None, **changes: Any) -> StartSpec:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        given: dict[str, Any] = {
            "installation": self.installation,
            "lifetime": self.lifetime,
            "runtime": opaque(),
            "handoff": {"runtime": "r", "env": env or {}, "pids": None, "memory": None, "preload": False},
            "directory": self.directory,
            "sockets": self.sockets,
            "limits": ResolvedLimits(cpus=1, memory=256 * MIB, pids=64),
            "network": "none",
            "image": None,
            "interpreter": Interpreter("", "", ""),
            "timeout": 30.0,
        }
        return StartSpec(**{**given, **changes})

    async def start(self, **changes: Any) -> Runtime:
        return await self.engine.start(self.spec(**changes), lambda step: None)

    async def destroy(self) -> None:
        await self.engine.destroy(self.lifetime, self.directory)


def ask(runtime: Runtime, command: str) -> Any:
    """What the stand-in agent answers to ``command``."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(runtime.socket)
        with connection.makefile("rw") as stream:
            stream.write(json.dumps(command) + "\n")
            stream.flush()
            return json.loads(stream.readline())


def out(runtime: Runtime, command: str) -> str:
    """What a shell command writes inside."""
    answer = ask(runtime, command)
    assert answer["code"] == 0, answer
    return str(answer["out"]).strip()


def run_docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    """A client of the test's own, to look from outside."""
    with docker.APIClient(version="auto") as own:
        yield own


@pytest.fixture
def root() -> Iterator[Path]:
    """A private directory with a short path."""
    path = Path(tempfile.mkdtemp(prefix="jsb-", dir="/run" if Path("/run").stat().st_uid == 0 else "/tmp"))
    (path / "s").mkdir(mode=0o700)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def engine() -> AsyncIterator[DockerEngine]:
    engine = DockerEngine(STAND_IN)
    yield engine
    await engine.close()


@pytest.fixture
def installation(client: docker.APIClient) -> Iterator[str]:
    """An installation id; whatever still carries it after the test is removed, and fails the test."""
    own = opaque()
    yield own
    label = {"label": f"org.jupyter.sandbox.installation={own}"}
    containers = [found["Names"][0] for found in client.containers(all=True, filters=label)]
    volumes = [found["Name"] for found in client.volumes(filters=label)["Volumes"] or ()]
    for name in containers:
        client.remove_container(name, force=True, v=True)
    for name in volumes:
        client.remove_volume(name)
    assert not containers + volumes


@pytest.fixture
async def place(engine: DockerEngine, installation: str, root: Path, image: Any) -> AsyncIterator[Place]:
    """A lifetime that has not been started; destroyed afterwards, before the images that it may use."""
    place = Place(engine, root, installation)
    yield place
    await place.destroy()
    assert list(place.sockets.iterdir()) == []


@pytest.fixture
def image(client: docker.APIClient) -> Iterator[Any]:
    """Makes images of ours with other settings, by Dockerfile instructions; removed afterwards."""
    made: list[str] = []

    def make(*changes: str, source: str = DEFAULT_IMAGE) -> str:
        name = f"jsb-test-variant:{secrets.token_hex(4)}"
        created = client.create_container(source, ["true"])["Id"]
        try:
            client.commit(created, *name.split(":"), changes=list(changes))
        finally:
            client.remove_container(created)
        made.append(name)
        return name

    yield make
    for name in made:
        client.remove_image(name, force=True)
