"""The doctor on this machine, and on machines where nothing works."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jupyter_sandbox import __version__, get_sandbox, paths
from jupyter_sandbox.cli import doctor, examine, records_seen, remedies
from jupyter_sandbox.cli.findings import Finding, Report, screen
from jupyter_sandbox.engines.base import Engine, Probe
from jupyter_sandbox.errors import error
from jupyter_sandbox.models import Protection

from .conftest import Run

LIFETIME = "0123456789abcdef" * 2
INSTALLATION = "f" * 32


class EngineWithoutDaemon(Engine):
    """Its daemon does not answer, whatever is asked."""

    name: ClassVar[str] = "docker"

    async def probe(self) -> Probe:
        return Probe(False, "The Docker daemon does not answer.", "Start it.", facts={"code": "ENGINE_UNAVAILABLE"})

    async def find(self, installation: str) -> set[str]:
        raise error("ENGINE_UNAVAILABLE")

    async def _no(self, *_: Any) -> Any:
        raise error("ENGINE_UNAVAILABLE")

    start = is_alive = wait = freeze = thaw = stop = destroy = usage = set_limits = _no


class EngineThatBreaks(EngineWithoutDaemon):
    """Its probe raises something that is no error of ours."""

    async def probe(self) -> Probe:
        raise RuntimeError("a bug")


class EngineWithLeftovers(EngineWithoutDaemon):
    """Works, and has sandboxes that no record knows."""

    name: ClassVar[str] = "bubblewrap"

    def __init__(self) -> None:
        self.there = {INSTALLATION: {LIFETIME}, "another": {"e" * 32}}

    async def probe(self) -> Probe:
        return Probe(True, isolation=(Protection("network", True), Protection("disk", False, "no quota")))

    async def find(self, installation: str) -> set[str]:
        return set(self.there.get(installation, ()))

    async def destroy(self, lifetime: str, directory: Path) -> None:
        self.there[INSTALLATION].discard(lifetime)


def examined(*engines: Engine, clean: doctor.Confirm | None = None) -> Report:
    factories: dict[str, Callable[[], Engine]] = {one.name: lambda one=one: one for one in engines}  # type: ignore[misc]
    return asyncio.run(doctor.examined(clean, lambda _: factories))


def about(report: Report, subject: str) -> Finding:
    return next(finding for finding in report.findings if finding.about == subject)


@contextmanager
def records(*rows: tuple[str, str, str], version: int = 1) -> Iterator[Path]:
    """Records as a manager writes them."""
    paths.data_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
    path = paths.data_dir() / "records.sqlite"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        file.execute("CREATE TABLE sandboxes (lifetime TEXT PRIMARY KEY, owner, id, state, body)")
        file.execute("INSERT INTO meta VALUES ('installation', ?)", (INSTALLATION,))
        file.executemany("INSERT INTO sandboxes VALUES (?, 'os:a', ?, ?, '{}')", rows)
        file.execute(f"PRAGMA user_version = {version}")
    file.close()
    yield path
    path.unlink()


# --- on this machine -----------------------------------------------------------------------------------------------


def test_here_the_doctor_names_each_engine_what_it_isolates_and_what_not(engine_name: str, cli: Run) -> None:
    done = cli("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    mine = next(engine for engine in found["engines"] if engine["name"] == engine_name)
    assert mine["available"]
    protections = {one["name"]: one for one in mine["isolation"]}
    assert protections["filesystem"]["enforced"]
    assert protections["disk"]["reason"]
    assert found["works"]
    assert found["leftovers"] == []
    shown = cli("doctor")
    assert shown.returncode == 0
    assert "not enforced: disk" in shown.stdout
    assert "manager       ok     does not run" in shown.stdout
    assert not paths.data_dir().exists(), "looking leaves nothing"


def test_a_sandbox_that_lives_is_no_leftover_and_its_manager_is_told(engine_name: str, cli: Run) -> None:
    with get_sandbox("alive") as sandbox:
        sandbox.exec("true")
        for asleep in (False, True):
            if asleep:
                sandbox.sleep(force=True)
            done = cli("doctor", "--clean", "--yes", "--json")
            found = json.loads(done.stdout)
            assert found["leftovers"] == []
            manager = next(one for one in found["findings"] if one["about"] == "manager")
            assert manager["level"] == "ok"
            assert f"runs: version {__version__}" in manager["text"]
        assert sandbox.exec("true").success
        assert "1 sandbox," in cli("doctor").stdout
        sandbox.destroy()


@pytest.mark.bubblewrap
def test_an_ordinary_user_without_docker_is_told_what_to_type(environment: Any, tmp_path: Path) -> None:
    here = socket.socket(socket.AF_UNIX)
    here.bind(str(environment.root / "docker.sock"))
    (environment.root / "docker.sock").unlink()
    here.close()
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_sandbox.cli", "doctor"],
        env={**os.environ, "DOCKER_HOST": f"unix://{environment.root}/docker.sock"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "docker        no" in done.stdout
    assert "unset DOCKER_HOST" in done.stdout
    assert "New ones use bubblewrap" in done.stdout


AS_NOBODY = """
import os, sys
import jupyter_sandbox.engines.bubblewrap, jupyter_sandbox.engines.docker
from jupyter_sandbox.cli import main
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main(["doctor"]))
"""


@pytest.mark.root
@pytest.mark.docker
def test_who_may_not_use_the_socket_of_docker_is_told_so_and_how_to_join(environment: Any) -> None:
    for path in (environment.root, *environment.root.rglob("*")):
        os.chown(path, 65534, 65534)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, timeout=120, cwd="/", check=False
    )
    assert "Traceback" not in done.stderr
    assert "may not be used by this user" in done.stdout
    assert "sudo usermod -aG" in done.stdout or "an administrator" in done.stdout
    assert done.returncode == ("No engine works here" in done.stdout)


# --- where nothing works -------------------------------------------------------------------------------------------


def test_where_no_engine_works_each_says_why_and_the_exit_code_is_1(environment: Any) -> None:
    report = examined(EngineWithoutDaemon())
    assert not report.works
    text = screen(report)
    assert "does not answer" in text
    assert "No engine works here" in text
    assert report.to_json()["works"] is False


def test_an_engine_that_breaks_is_a_finding_and_no_traceback(environment: Any) -> None:
    report = examined(EngineThatBreaks())
    assert "RuntimeError: a bug" in screen(report)

    def cannot_be_made(_: Path) -> dict[str, Callable[[], Engine]]:
        def make() -> Engine:
            raise OSError("no space")

        return {"docker": make}

    report = asyncio.run(doctor.examined(None, cannot_be_made))
    assert "no space" in screen(report)
    assert not report.works


@pytest.mark.parametrize(
    ("code", "command"),
    [("IMAGE_MISSING", "jupyter sandbox build"), ("IMAGE_NOT_USABLE", "jupyter sandbox build --no-cache")],
)
def test_what_is_wrong_with_the_image_is_mended_by_one_command(code: str, command: str) -> None:
    assert remedies.of("docker", Probe(False, "x", facts={"code": code}))[1] == (command,)


def test_a_docker_that_is_down_is_started_and_one_that_is_not_there_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    down = Probe(False, "x", facts={"code": "ENGINE_UNAVAILABLE", "host": f"unix://{tmp_path}/none.sock"})
    monkeypatch.setattr(remedies.shutil, "which", lambda _: "/usr/sbin/dockerd")
    assert remedies.of("docker", down)[1][0].endswith(("enable --now docker", "service docker start"))
    monkeypatch.setattr(remedies.shutil, "which", lambda _: None)
    assert "apt-get install docker.io" in remedies.of("docker", down)[1][0]


def test_who_is_not_in_the_group_of_the_socket_is_told_to_join_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "docker.sock"
    path.touch()
    os.chown(path, -1, 1) if os.geteuid() == 0 else None
    monkeypatch.setattr(remedies.os, "access", lambda *_: False)
    probe = Probe(False, "x", facts={"code": "ENGINE_UNAVAILABLE", "host": f"unix://{path}"})
    advice, commands = remedies.of("docker", probe)
    assert "root on this machine" in advice
    assert commands[0].startswith("sudo usermod -aG ")


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n", "kernel.unprivileged_userns_clone=1"),
        ("proc/sys/user/max_user_namespaces", "0\n", "user.max_user_namespaces="),
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "apparmor_restrict_unprivileged_userns=0"),
    ],
)
def test_a_kernel_that_forbids_user_namespaces_is_told_to_allow_them(
    tmp_path: Path, setting: str, value: str, wanted: str
) -> None:
    (tmp_path / setting).parent.mkdir(parents=True)
    (tmp_path / setting).write_text(value)
    advice, commands = remedies.of("bubblewrap", Probe(False, "it said nothing"), tmp_path)
    assert "namespaces" in advice
    assert wanted in commands[0]


# --- leftovers -----------------------------------------------------------------------------------------------------


def leave_behind() -> tuple[Path, Path]:
    """A directory without a record, and a socket at which nobody listens."""
    directory = paths.data_dir() / "sandboxes" / LIFETIME
    (directory / "workspace").mkdir(parents=True)
    (directory / "workspace" / "file").write_text("old")
    dead = paths.runtime_dir() / "dead.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(dead))
    return directory, dead


def test_what_no_record_knows_is_told_and_removed_only_when_asked(environment: Any) -> None:
    engine = EngineWithLeftovers()
    with records(("a" * 32, "kept", "stopped")):
        kept = paths.data_dir() / "sandboxes" / ("a" * 32)
        kept.mkdir(parents=True)
        directory, dead = leave_behind()
        report = examined(engine)
        assert {one.kind for one in report.leftovers} == {"engine", "directory", "socket"}
        assert "jupyter sandbox doctor --clean" in screen(report)
        refused = examined(engine, clean=lambda _: False)
        assert not any(one.removed for one in refused.leftovers)
        assert directory.exists()
        asked: list[Any] = []
        report = examined(engine, clean=lambda found: asked.extend(found) or True)  # type: ignore[func-returns-value]
        assert len(asked) == 3
        assert all(one.removed for one in report.leftovers)
        assert screen(report).count("removed") == 3
        assert not directory.exists()
        assert not dead.exists()
        assert kept.exists()
        assert engine.there == {INSTALLATION: set(), "another": {"e" * 32}}
        assert examined(engine).leftovers == []


def test_without_records_nothing_is_known_to_be_ours(environment: Any) -> None:
    directory, dead = leave_behind()
    assert examined(EngineWithLeftovers(), clean=lambda _: True).leftovers == []
    assert directory.exists()
    dead.unlink()


def test_a_socket_of_a_start_under_way_is_left_alone(environment: Any) -> None:
    with records(("a" * 32, "new", "starting")):
        _, dead = leave_behind()
        assert "socket" not in {one.kind for one in examined(EngineWithLeftovers()).leftovers}
        dead.unlink()


def test_nothing_is_removed_without_a_terminal_or_yes(environment: Any, cli: Run) -> None:
    with records():
        directory, dead = leave_behind()
        done = cli("doctor", "--clean")
        assert "--yes" in done.stderr
        assert directory.exists()
        assert "removed  " in cli("doctor", "--clean", "--yes").stdout
        assert not directory.exists()
        assert not dead.exists()


# --- records, directories and managers -----------------------------------------------------------------------------


def test_records_that_cannot_be_read_are_a_fault_with_a_way_out(environment: Any) -> None:
    with records(version=99):
        newer = about(examined(EngineWithoutDaemon()), "records")
        assert newer.level == "fault"
        assert newer.commands == ("pip install --upgrade jupyter-sandbox",)
    path = paths.data_dir() / "records.sqlite"
    path.write_bytes(b"no database" * 100)
    damaged = about(examined(EngineWithoutDaemon()), "records")
    assert damaged.level == "fault"
    assert damaged.commands[0].startswith("mv ")
    path.unlink()
    path.mkdir()
    with pytest.raises(records_seen.Unreadable):
        records_seen.read(path)
    path.rmdir()


def test_a_data_directory_open_to_others_is_a_fault(environment: Any) -> None:
    paths.data_dir().mkdir(parents=True)
    paths.data_dir().chmod(0o755)
    found = about(examined(EngineWithoutDaemon()), "records")
    assert found.commands == (f"chmod 700 {paths.data_dir()}",)


def test_sockets_that_cannot_be_made_are_a_fault(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/dev/null/nowhere")
    found = about(examined(EngineWithoutDaemon()), "sockets")
    assert found.level == "fault"
    assert "XDG_RUNTIME_DIR" in found.advice


def test_a_manager_of_another_version_is_named_with_the_way_to_end_it(
    environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "_version", lambda _: {"package": "0.0.9", "api": "0.9", "pid": 12345})
    found = about(examined(EngineWithoutDaemon()), "manager")
    assert found.level == "fault"
    assert "0.0.9" in found.text
    assert found.commands == ("kill 12345",)
    monkeypatch.setattr(examine, "_version", lambda _: {"package": "0.0.9", "api": "1.7", "pid": 12345})
    assert about(examined(EngineWithoutDaemon()), "manager").level == "note"


def test_a_manager_that_hangs_is_a_fault(environment: Any) -> None:
    paths.data_dir().mkdir(mode=0o700, parents=True)
    hanging = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "jupyter_sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert hanging.stdout is not None
        hanging.stdout.readline()
        body = {"pid": hanging.pid, "socket": str(paths.manager_socket())}
        (paths.data_dir() / "manager.json").write_text(json.dumps(body))
        found = about(examined(EngineWithoutDaemon()), "manager")
    finally:
        hanging.communicate()
        (paths.data_dir() / "manager.json").unlink()
    assert found.level == "fault"
    assert found.commands == (f"kill -9 {hanging.pid}",)
