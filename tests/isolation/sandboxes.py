"""Real sandboxes for the probes, with the real agent; one of each kind of weakness, started when first asked for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import http.client
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_sandbox import ids
from jupyter_sandbox.engines import agent_zip
from jupyter_sandbox.engines.base import Engine, Interpreter, Runtime, StartSpec
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.bubblewrap import arguments as inside_bubblewrap
from jupyter_sandbox.engines.docker import DockerEngine, container
from jupyter_sandbox.options import ResolvedLimits

from .probe import OUTSIDE, Probe, argument, program
from .weakened import weakened

TARGET = Path(__file__).with_name("target.py")
AGENT_INSIDE = {"bubblewrap": inside_bubblewrap.AGENT, "docker": f"{container.DOOR}/agent.pyz"}
SECRET = "jsb-environment-of-the-host"
PATIENCE = 120.0
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What came of a probe: whether the act succeeded, and what it gained or with which error it failed."""

    allowed: bool
    why: str


@dataclass(frozen=True)
class Ended:
    """How a command inside ended."""

    code: int
    stdout: str
    stderr: str
    event: dict[str, Any]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


@dataclass
class Inside:
    """A running sandbox, and what can be asked of its agent."""

    engine: Engine
    runtime: Runtime
    directory: Path
    uid: int

    def get(self, path: str) -> dict[str, Any]:
        """What the agent answers."""
        with contextlib.closing(_Connection(self.runtime.socket)) as connection:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer

    @contextlib.contextmanager
    def started(self, command: str, stdin: str = "") -> Iterator[http.client.HTTPResponse]:
        """The events of a command, as they come; it is killed at the end."""
        body: dict[str, Any] = {"command": command, "timeout": None, "cwd": None, "env": {}}
        body["stdin"] = base64.b64encode(stdin.encode()).decode()
        with contextlib.closing(_Connection(self.runtime.socket)) as connection:
            connection.request("POST", "/exec", json.dumps(body), {"Content-Type": "application/json"})
            yield connection.getresponse()

    def execute(self, command: str, stdin: str = "") -> Ended:
        """Run a command to its end."""
        with self.started(command, stdin) as response:
            events = [json.loads(line) for line in response]
        assert events, response.status
        assert events[-1].get("event") == "result", events[-1]
        text = {name: "".join(e["data"] for e in events if e["event"] == name) for name in ("stdout", "stderr")}
        return Ended(events[-1]["exit_code"], text["stdout"], text["stderr"], events[-1])

    def python(self, source: str, *words: str) -> Ended:
        """Run a Python program; it sees ``words`` in ``sys.argv[1:]``."""
        return self.execute(shlex.join(["python3", "-I", "-S", "-", *words]), source)


def remove_memory(key: int) -> None:
    """Remove System V shared memory of this machine."""
    libc = ctypes.CDLL(None)
    libc.shmctl(libc.shmget(key, 0, 0), 0, None)


def outcome(stdout: str, stderr: str) -> Outcome:
    """What a probe's program printed."""
    assert stdout.strip(), stderr
    return Outcome(**json.loads(stdout.strip().splitlines()[-1]))


class Sandboxes:
    """The sandboxes of one engine, with what there is outside of them to be reached; all is gone after ``close``."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.name = "docker" if setting == "docker" else "bubblewrap"
        self._stack = contextlib.ExitStack()
        base = "/run" if os.geteuid() == 0 else "/tmp"
        self.root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="jsbiso-", dir=base)))
        for part in ("lifetimes", "sockets"):
            (self.root / part).mkdir(mode=0o700)
        self.root.chmod(0o711)
        agent = agent_zip.build(self.root / "agent")
        agent.chmod(0o666)  # so that nothing but its mount protects it
        self._runner = self._stack.enter_context(asyncio.Runner())
        self.engine: Engine = DockerEngine(agent) if self.name == "docker" else BubblewrapEngine(agent)
        self._installation = ids.opaque()
        self._lifetimes: list[str] = []
        self._inside: dict[tuple[frozenset[str], int], Inside] = {}
        self._facts: dict[frozenset[str], dict[str, Any]] = {}
        self._files()

    def _files(self) -> None:
        for name, mode in {"public": 0o644, "private": 0o600}.items():
            (self.root / name).write_text("found\n")
            (self.root / name).chmod(mode)

    def close(self) -> None:
        """End everything."""
        with self._stack:
            self._stack.callback(lambda: self._runner.run(self.engine.close()))
            self._stack.callback(lambda: self._runner.run(self._destroy_all()))

    async def _destroy_all(self) -> None:
        await asyncio.gather(*(self._destroy(lifetime) for lifetime in self._lifetimes))

    async def _destroy(self, lifetime: str) -> None:
        await self.engine.destroy(lifetime, self.root / "lifetimes" / lifetime)

    def start(self, off: frozenset[str] = NOTHING, limits: ResolvedLimits | None = None) -> Inside:
        """A new sandbox without the protections ``off``."""
        lifetime, runtime = ids.opaque(), ids.opaque()
        directory = self.root / "lifetimes" / lifetime
        directory.mkdir(mode=0o700)
        self._lifetimes.append(lifetime)
        spec = StartSpec(
            installation=self._installation,
            lifetime=lifetime,
            runtime=runtime,
            handoff={"runtime": runtime, "env": {}, "preload": False},
            directory=directory,
            sockets=self.root / "sockets",
            limits=limits or ResolvedLimits(),
            network="none",
            image=None,
            interpreter=Interpreter(sys.executable, sys.prefix, sys.base_prefix),
            timeout=60.0,
        )
        with weakened(off):
            made = self._runner.run(self.engine.start(spec, lambda step: None))
        uid = 1000 if self.name == "docker" else _uid_of(made)
        return Inside(self.engine, made, directory, uid)

    def destroy(self, inside: Inside) -> None:
        """End one before the others."""
        self._lifetimes.remove(inside.runtime.lifetime)
        self._runner.run(self._destroy(inside.runtime.lifetime))

    def run(self, coroutine: Any) -> Any:
        """Run something of the engine."""
        return self._runner.run(coroutine)

    def shared(self, off: frozenset[str], number: int = 0) -> Inside:
        """The sandbox without ``off`` that all probes share; ``number`` 1 is its neighbour."""
        if (off, number) not in self._inside:
            self._inside[off, number] = self.start(off)
        return self._inside[off, number]

    def try_(self, probe: Probe, off: frozenset[str] = NOTHING) -> Outcome:
        """Try the act in the sandbox without ``off``."""
        if OUTSIDE in off:
            return self._outside(probe)
        with_neighbour = "neighbour" in probe.act
        done = self.shared(off).python(program(probe), argument(self.facts(off, with_neighbour=with_neighbour)))
        return outcome(done.stdout, done.stderr)

    def _outside(self, probe: Probe) -> Outcome:
        words = [sys.executable, "-I", "-S", "-", argument(self.facts(NOTHING, with_neighbour=False))]
        done = subprocess.run(words, input=program(probe), capture_output=True, text=True, timeout=60)
        return outcome(done.stdout, done.stderr)

    def facts(self, off: frozenset[str], *, with_neighbour: bool) -> dict[str, Any]:
        """What there is to be reached from the sandbox without ``off``."""
        if off not in self._facts:
            mark = f"jsbt-{ids.opaque()[:12]}"
            words = [sys.executable, "-I", "-S", str(TARGET), mark, str(self.shared(off).uid), f"/tmp/{mark}.file"]
            process = self._stack.enter_context(
                subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert process.stdout is not None
            self._facts[off] = {
                **json.loads(process.stdout.readline()),
                "public": str(self.root / "public"),
                "private": str(self.root / "private"),
                "agent": AGENT_INSIDE[self.name],
                "hostname": socket.gethostname(),
                "environment": SECRET,
            }
        if with_neighbour and "neighbour" not in self._facts[off]:
            self._facts[off]["neighbour"] = self._neighbour(off)
        return self._facts[off]

    def _neighbour(self, off: frozenset[str]) -> dict[str, Any]:
        """Another sandbox with the same namespaces and mounts, in which the target runs."""
        neighbour = self.shared(off - {"file system view", "ordinary user", "unprivileged uid"}, 1)
        mark = f"jsbt-{ids.opaque()[:12]}"
        source = TARGET.read_text().replace("sys.stdin.read()", "__import__('signal').pause()")
        command = f"exec python3 -I -S - {mark} 0 /workspace/{mark}"
        response = self._stack.enter_context(neighbour.started(command, source))
        event = json.loads(response.readline())
        assert event.get("event") == "stdout", event
        made = json.loads(event["data"])
        if "IPC namespace" in off:
            self._stack.callback(remove_memory, made["key"])
        # It is killed, so that what it made where the host's own was mounted is still there.
        for path in (f"/dev/shm/{mark}", f"/tmp/{mark}"):
            self._stack.callback(Path(path).unlink, missing_ok=True)
        return {**made, "file": str(self._workspace(neighbour) / mark)}

    def _workspace(self, inside: Inside) -> Path:
        if self.name == "bubblewrap":
            return inside.directory / "workspace"
        info = subprocess.run(
            ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", container.name(inside.runtime.lifetime)],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return Path(info.stdout.strip())


def _uid_of(runtime: Runtime) -> int:
    return Path(f"/proc/{dict(runtime.handle)['monitor']['pid']}").stat().st_uid
