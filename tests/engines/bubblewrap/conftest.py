"""Real sandboxes of the bubblewrap engine with a stand-in agent that executes what a test sends it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox import ids
from jupyter_sandbox.engines import cgroups
from jupyter_sandbox.engines.base import Interpreter, Runtime, StartSpec
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.bubblewrap.found import find
from jupyter_sandbox.options import ResolvedLimits

HERE = Path(__file__).parent
PYTHON = Interpreter(sys.executable, sys.prefix, sys.base_prefix)


@dataclass
class Place:
    """An engine with private directories; all that it started is ended afterwards."""

    root: Path
    engine: BubblewrapEngine
    installation: str = field(default_factory=ids.opaque)
    lifetimes: set[str] = field(default_factory=set)

    def spec(self, lifetime: str | None = None, env: dict[str, str] | None = None, **given: Any) -> StartSpec:
        """What a manager would ask for."""
        lifetime = lifetime or ids.opaque()
        self.lifetimes.add(lifetime)
        runtime = ids.opaque()
        self.directory(lifetime).mkdir(mode=0o700, exist_ok=True)
        values: dict[str, Any] = {
            "installation": self.installation,
            "lifetime": lifetime,
            "runtime": runtime,
            "handoff": {"runtime": runtime, "env": env or {}, "preload": False},
            "directory": self.directory(lifetime),
            "sockets": self.root / "sockets",
            "limits": ResolvedLimits(),
            "network": "none",
            "image": None,
            "interpreter": PYTHON,
            "timeout": 30.0,
        }
        return StartSpec(**{**values, **given})

    async def start(self, lifetime: str | None = None, **given: Any) -> Runtime:
        """Start a sandbox."""
        return await self.engine.start(self.spec(lifetime, **given), lambda step: None)

    def directory(self, lifetime: str) -> Path:
        """Of a lifetime."""
        return self.root / "lifetimes" / lifetime

    def left(self) -> list[str]:
        """What is left of the sandboxes of this test besides their files."""
        marked = [
            f"process {one.process.pid}" for one in find(range(200_000, 265_536)) if one.lifetime in self.lifetimes
        ]
        walk = os.walk("/sys/fs/cgroup")
        groups = [f"{top}/{name}" for top, names, _ in walk for name in names if name[4:] in self.lifetimes]
        return [*marked, *groups, *(str(path) for path in (self.root / "sockets").iterdir())]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def _post(path: str, source: str) -> str:
    with contextlib.closing(_Connection(path)) as connection:
        connection.request("POST", "/", source.encode())
        return connection.getresponse().read().decode().strip()


async def run(runtime: Runtime, source: str) -> str:
    """Execute Python in the stand-in agent; what it printed."""
    return await asyncio.to_thread(_post, runtime.socket, source)


@pytest.fixture
def without_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that lets us have no control groups."""
    monkeypatch.setattr(cgroups, "discover", dict)


@pytest.fixture(params=["here", "nowhere"], ids=["cgroups as found", "no cgroups"])
def any_cgroups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the control groups of this machine, and with none."""
    if request.param == "nowhere":
        monkeypatch.setattr(cgroups, "discover", dict)


def _descriptors() -> list[str]:
    """What this process has open; connections of a test may still be on their way."""
    gc.collect()
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return [target for target in found if "event" not in target]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A place to start sandboxes; whatever a test leaves behind in it fails the test."""
    with tempfile.TemporaryDirectory(prefix="jsbbw-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        for part in ("lifetimes", "sockets"):
            (root / part).mkdir(mode=0o700)
        made = Place(root, BubblewrapEngine(HERE / "stand_in_agent.py"))
        before = len(_descriptors())
        yield made
        for lifetime in made.lifetimes:
            await made.engine.destroy(lifetime, made.directory(lifetime))
        await made.engine.close()
        for path in (root / "sockets").iterdir():
            path.unlink()
        assert made.left() == []
        assert len(_descriptors()) <= before, _descriptors()
        assert list((root / "lifetimes").iterdir()) == []


@pytest.fixture
def ordinary_user(repository: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs Python as a new user, from a virtual environment below his home, which is 0700.

    Code, packages and Python of this run are mounted where that user may go, for these processes only.
    """
    name = f"jsbtest-{ids.opaque()[:8]}"
    subprocess.run(["useradd", "--create-home", name], check=True)
    home = Path(f"/home/{name}")
    try:
        yield _in_home_of(name, home, repository)
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def _in_home_of(name: str, home: Path, repository: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    home.chmod(0o700)
    packages = Path(pytest.__file__).parents[1]
    inside = home / "env/lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    mounted = {repository: home / "code", packages: inside}
    for place in mounted.values():
        place.mkdir(parents=True)
    subprocess.run(["chown", "--recursive", f"{name}:", home], check=True)
    mounts = [f"mount --bind '{source}' '{place}'" for source, place in mounted.items()] + _reachable_python(home)
    script = " && ".join([*mounts, f"cd {home}/code", f'exec setpriv --reuid {name} --regid {name} --init-groups "$@"'])
    environment = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{home}/code",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def as_user(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=150,
        )

    made = as_user(f"{sys.base_prefix}/bin/python3", "-m", "venv", "--without-pip", f"{home}/env")
    assert made.returncode == 0, made.stderr
    return lambda *arguments: as_user(f"{home}/env/bin/python", *arguments)


def _reachable_python(home: Path) -> list[str]:
    """Commands that make the Python of this run reachable by everybody, at its own path."""
    base = Path(sys.base_prefix)
    blocked = next((path for path in reversed(base.parents) if not path.stat().st_mode & 1), None)
    if blocked is None:
        return []
    (home / "python").mkdir()
    return [
        f"mount --bind '{base}' '{home}/python'",
        f"mount -t tmpfs -o mode=755 tmpfs '{blocked}'",
        f"mkdir -p '{base}'",
        f"mount --bind '{home}/python' '{base}'",
    ]
