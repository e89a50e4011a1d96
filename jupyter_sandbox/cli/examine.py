"""Looks at this machine and this installation for `jupyter sandbox doctor`; changes nothing, starts no manager."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import platform
import pwd
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__, paths
from ..client import show
from ..client.connection import API_VERSION
from ..client.spawn import find_socket
from ..engines.base import Engine, Probe
from ..errors import SandboxError
from . import records_seen, remedies
from .findings import EngineFound, Finding

_PROBE_SECONDS = 60.0
_ANSWER_SECONDS = 5.0


def title() -> str:
    """Who runs what where."""
    return (
        f"jupyter-sandbox {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()}, user {user()}"
    )


def user() -> str:
    """The name of this process's user."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


async def engine(name: str, one: Engine) -> EngineFound:
    """Try an engine; whatever goes wrong with it is what is told."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            probe = await one.probe()
    except TimeoutError:
        probe = Probe(False, f"It did not answer within {_PROBE_SECONDS:.0f} seconds.")
    except SandboxError as exc:
        probe = Probe(False, exc.message, exc.remedy, facts={"code": exc.code})
    except Exception as exc:  # A broken engine is a finding: doctor must go on to the next one.
        probe = Probe(False, f"Its test failed with {type(exc).__name__}: {exc}")
    advice, commands = ("", ()) if probe.available else remedies.of(name, probe)
    return EngineFound(name=name, probe=probe, facts=_facts(probe), advice=advice, commands=commands)


def _facts(probe: Probe) -> str:
    facts = probe.facts
    parts = [f"version {facts['version']}" if facts.get("version") else ""]
    parts.append(f"at {facts['host']}" if facts.get("host") else str(facts.get("bwrap") or ""))
    if facts.get("image"):
        age = _age(facts.get("image_created"))
        of_version = f", version {facts['image_version']}" if facts.get("image_version") else ""
        parts.append(f"image {facts['image']}{of_version}{age}")
    return "; ".join(filter(None, parts)) or "It works."


def _age(made: object) -> str:
    try:
        moment = datetime.fromisoformat(str(made))
    except ValueError:
        return ""
    return f", built {show.ago(moment, datetime.now(UTC))}"


def docker_socket(host: str) -> Iterator[Finding]:
    """What a reachable socket means."""
    path = Path(host.removeprefix("unix://"))
    if host.startswith("unix://") and os.geteuid() != 0 and path.exists() and os.access(path, os.W_OK):
        text = f"{path} is open to {user()}, who thereby is root on this machine, sandboxes or not."
        yield Finding(about="docker socket", level="note", text=text)


def manager() -> Iterator[Finding]:
    """Whether one runs, and whether it is of this version."""
    log = paths.data_dir() / "manager.log"
    logged = f"; its log is {log}" if log.exists() else ""
    try:
        path = find_socket()
    except (SandboxError, OSError) as exc:  # Its directory is a finding of its own.
        yield Finding(about="manager", level="fault", text=f"cannot be reached: {exc}")
        return
    said = _version(path)
    if said is None:
        yield _silent(path, logged)
        return
    text = f"runs: version {said.get('package')}, process {said.get('pid')}{logged}"
    if said.get("package") == __version__ and said.get("api") == API_VERSION:
        yield Finding(about="manager", level="ok", text=text)
        return
    same = str(said.get("api", "")).split(".")[0] == API_VERSION.split(".")[0]
    yield Finding(
        about="manager",
        level="note" if same else "fault",
        text=f"{text}. It is of another version than this command ({__version__}).",
        advice="It makes room when it is idle. To end it now (sandboxes stop, their files stay):",
        commands=(f"kill {said['pid']}",) if isinstance(said.get("pid"), int) else (),
    )


def _silent(path: Path, logged: str) -> Finding:
    holder = _holder()
    if holder is None:
        return Finding(about="manager", level="ok", text=f"does not run; it starts when it is needed{logged}")
    return Finding(
        about="manager",
        level="fault",
        text=f"process {holder} does not answer at {path}{logged}",
        advice="If that lasts, end it; sandboxes and files stay, and the next command starts another one:",
        commands=(f"kill -9 {holder}",),
    )


def _holder() -> int | None:
    """The process that says that it is the manager, if it exists."""
    try:
        pid = int(json.loads((paths.data_dir() / "manager.json").read_text())["pid"])
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if b"jupyter_sandbox" in words else None


def _version(path: Path) -> dict[str, Any] | None:
    """What the manager at ``path`` says of itself; a manager of any version answers this."""
    connection = http.client.HTTPConnection("manager", timeout=_ANSWER_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(_ANSWER_SECONDS)
        connection.sock.connect(str(path))
        connection.request("GET", "/version")
        body = json.loads(connection.getresponse().read(65536))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if isinstance(body, dict) else None


def data_directory() -> Iterator[Finding]:
    """Whether the records are where they are to be, ours alone, and readable."""
    place = paths.data_dir()
    if not place.exists():
        yield Finding(about="records", level="ok", text=f"none yet; they will be in {place}")
        return
    yield from _private("records", place)
    try:
        found = records_seen.read(place / "records.sqlite")
    except records_seen.Unreadable as exc:
        yield _unreadable(place / "records.sqlite", str(exc))
        return
    count = len(found.lifetimes) if found else 0
    yield Finding(about="records", level="ok", text=f"{count} sandbox{'es' * (count != 1)}, in {place}")


def _unreadable(path: Path, why: str) -> Finding:
    if "newer version" in why:
        return Finding(
            about="records",
            level="fault",
            text=f"{path}: {why}.",
            commands=("pip install --upgrade jupyter-sandbox",),
        )
    return Finding(
        about="records",
        level="fault",
        text=f"{path} cannot be read: {why}.",
        advice="To begin anew with the files of old sandboxes kept in the same directory (end the manager first):",
        commands=(f"mv {path} {path}.damaged",),
    )


def runtime_directory() -> tuple[Path | None, list[Finding]]:
    """The directory of the sockets, if it can be used."""
    try:
        place = paths.runtime_dir()
    except SandboxError as exc:
        return None, [Finding(about="sockets", level="fault", text=exc.message, advice=exc.remedy)]
    except OSError as exc:
        text = f"The directory for sockets cannot be made: {exc}."
        advice = "Set XDG_RUNTIME_DIR to a directory of yours, with a short path:"
        where = Path("/tmp") / f"run-{user()}"  # noqa: S108 - a suggestion; mkdir fails if somebody else has it
        commands = (f"mkdir -m 700 {where} && export XDG_RUNTIME_DIR={where}",)
        return None, [Finding(about="sockets", level="fault", text=text, advice=advice, commands=commands)]
    return place, [Finding(about="sockets", level="ok", text=f"in {place}, open to this user only")]


def _private(about: str, place: Path) -> Iterator[Finding]:
    found = place.stat()
    if found.st_uid != os.geteuid():
        yield Finding(
            about=about,
            level="fault",
            text=f"{place} belongs to uid {found.st_uid}, and this is uid {os.geteuid()}.",
            advice="Sandboxes cannot be kept there.",
            commands=(f"sudo chown -R {user()} {place}",),
        )
    elif stat.S_IMODE(found.st_mode) & 0o077:
        yield Finding(
            about=about,
            level="fault",
            text=f"{place} is open to others (mode {stat.S_IMODE(found.st_mode):o}).",
            commands=(f"chmod 700 {place}",),
        )
