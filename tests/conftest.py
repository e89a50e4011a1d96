"""What every test may use: a private environment, the engines of this machine, and the search for what is left.

``environment``  private directories for records, sockets and settings; afterwards its sandboxes are destroyed, its
                 manager is ended, and whatever is left anywhere fails the test.
``engine_name``  each engine in turn, chosen for every client that the test starts.
``run_notebook`` runs a notebook there, as `make demo` does.

Tests marked ``docker``, ``bubblewrap``, ``root`` or ``browser`` are skipped, by name and with the reason, where this
machine cannot run them.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox import __version__

IMAGE = f"jupyter-sandbox:{__version__}"
NOBODY = 65534
SETTLING = 5.0
"""Seconds in which closed connections and ended threads may disappear."""

# --- what this machine can run -------------------------------------------------------------------------------------


def _run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a short command that must neither hang nor raise."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, **options)
    except (OSError, subprocess.TimeoutExpired) as failure:
        return subprocess.CompletedProcess(command, 127, "", str(failure))


@functools.cache
def _lacks_docker() -> str | None:
    if (found := _run("docker", "version", "--format", "{{.Server.Version}}")).returncode:
        return f"no Docker daemon answers ({_last_line(found.stderr)}); as root, `make test` installs and starts one"
    if _run("docker", "image", "inspect", IMAGE).returncode:
        return f"the image {IMAGE} is not there; as root, `make test` builds it"
    return None


@functools.cache
def _lacks_bubblewrap() -> str | None:
    """Not the engine's own probe: a broken engine must fail its tests, not skip them."""
    options: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    found = _run("unshare", "--user", "--map-root-user", "--mount", "true", cwd="/", **options)
    return f"no unprivileged user namespaces here ({_last_line(found.stderr)})" if found.returncode else None


@functools.cache
def _lacks_root() -> str | None:
    return None if os.geteuid() == 0 else "needs root, to make other users"


@functools.cache
def _lacks_browser() -> str | None:
    there = os.access("/usr/bin/chromium", os.X_OK)
    return None if there else "there is no /usr/bin/chromium; as root, `make test` installs it"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1]


LACKS: dict[str, Callable[[], str | None]] = {
    "docker": _lacks_docker,
    "bubblewrap": _lacks_bubblewrap,
    "root": _lacks_root,
    "browser": _lacks_browser,
}


def pytest_configure() -> None:
    """Let interrupts work: a shell starts what runs in its background with SIGINT ignored, and children inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, saying why."""
    for mark, lacks in LACKS.items():
        if item.get_closest_marker(mark) and (reason := lacks()):
            pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every test that was skipped, under its reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")].append(report.nodeid)
    for reason, names in reasons.items():
        terminalreporter.section(f"{len(names)} skipped: {reason}", sep="-")
        terminalreporter.write_line("\n".join(f"  {name}" for name in names))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which every test was skipped has shown nothing, and is no success."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    ran = reporter is None or any(
        reporter.stats.get(kind) for kind in ("passed", "failed", "error", "xfailed", "xpassed")
    )
    if exitstatus == 0 and not ran and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


# --- a private environment -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Environment:
    """Private directories below one short path, and what belongs to them on this machine."""

    root: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that lead there; also for processes that a test starts."""
        parts = {"JUPYTER_DATA_DIR": "d", "JUPYTER_CONFIG_DIR": "c", "IPYTHONDIR": "i", "XDG_RUNTIME_DIR": "r"}
        return {
            **{name: str(self.root / part) for name, part in parts.items()},
            "JUPYTER_RUNTIME_DIR": str(self.root / "r/j"),
        }

    @property
    def records(self) -> Path | None:
        """The manager's database, once there is one."""
        return next(self.root.glob("d/sandbox/*/records.sqlite"), None)

    @property
    def manager_pid(self) -> int | None:
        """The process that is this environment's manager, as it says itself."""
        for path in self.root.rglob("manager.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                pid = int(json.loads(path.read_text())["pid"])
                return pid if Path(f"/proc/{pid}").exists() else None
        return None

    def marks(self) -> set[str]:
        """The strings by which things of this environment are known: its directory and every opaque id in use."""
        raw = self.records.read_bytes() if self.records else b""
        ids = {found.decode() for found in re.findall(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", raw)}
        machines = {path.name for path in self.root.glob("d/sandbox/*")}
        return {self.root.name} | (ids - machines)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """A private environment; what the test leaves behind after its sandboxes were destroyed fails it."""
    before = _threads(), _sockets()
    with tempfile.TemporaryDirectory(prefix="jsb-", dir="/tmp", ignore_cleanup_errors=True) as name:
        private = Environment(Path(name))
        for variable, value in private.variables.items():
            Path(value).mkdir(mode=0o700, parents=True, exist_ok=True)
            monkeypatch.setenv(variable, value)
        yield private
        problems = _end(private)
        marks = private.marks()
        problems += [*_left_on_the_machine(private, marks), *_left_in_this_process(*before)]
        _sweep(marks)
    assert not problems, "left behind:\n" + "\n".join(f"  {problem}" for problem in problems)


@pytest.fixture(
    params=[
        pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
        pytest.param("docker", marks=pytest.mark.docker),
    ]
)
def engine_name(request: pytest.FixtureRequest, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of each engine in turn; sandboxes made in the test are of this engine."""
    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", request.param)
    return str(request.param)


@pytest.fixture
def run_notebook(environment: Environment, repository: Path) -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """A function that runs the notebook at a path as `make demo` does, with all that it prints."""
    runner = [sys.executable, str(repository / "notebooks" / "run.py")]

    def run(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*runner, str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150
        )

    return run


def _end(private: Environment) -> list[str]:
    """Destroy every sandbox of the environment, then end its manager; say what would not go."""
    problems = []
    if private.records is not None:
        from jupyter_sandbox import get_sandbox, list_sandboxes

        try:
            for summary in list_sandboxes():
                with get_sandbox(summary.id, normalize_id=False) as sandbox:
                    sandbox.destroy()
        except Exception as failure:  # whatever it is, the rest of the search goes on and tells of it
            problems.append(f"its sandboxes cannot be destroyed: {failure!r}")
    if (pid := private.manager_pid) is not None and not _terminate(pid):
        problems.append(f"the manager (process {pid}) did not end when asked to")
    return problems


def _terminate(pid: int, patience: float = 20.0) -> bool:
    """Whether the process ended within ``patience`` seconds of SIGTERM; it is gone afterwards in any case."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if select.select([descriptor], [], [], patience)[0]:
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return False
    finally:
        os.close(descriptor)


# --- what is left --------------------------------------------------------------------------------------------------


def _left_on_the_machine(private: Environment, marks: set[str]) -> list[str]:
    """Processes, mounts, control groups, sockets, containers and volumes that carry one of the marks."""
    searches: list[Callable[[], list[str]]] = [
        lambda: [f"process {pid}: {what}" for pid, what in _processes(marks)],
        lambda: [f"mount: {line}" for line in _mentions(Path("/proc/self/mountinfo"), marks)],
        lambda: [f"control group {path}" for path in _control_groups(marks)],
        lambda: [f"socket {path}" for path in (private.root / "r").rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)],
        lambda: [f"container {' '.join(row)}" for row in _docker_rows(("ps", "-a", "--no-trunc"), marks)],
        lambda: [f"volume {' '.join(row)}" for row in _docker_rows(("volume", "ls"), marks)],
    ]
    # Short of a moment in which the last of them may go by themselves.
    deadline = time.monotonic() + SETTLING
    while (left := [line for search in searches for line in search()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _processes(marks: set[str]) -> list[tuple[int, str]]:
    """Processes whose command line, environment or mounts carry a mark, other than this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        if any(_mentions(entry / name, marks) for name in ("cmdline", "environ", "mountinfo")):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(entry.name), command[:200]))
    return found


def _mentions(path: Path, marks: set[str]) -> list[str]:
    """The lines of a file of ``/proc`` that carry a mark; none where it cannot be read."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if any(mark in line for mark in marks)]


def _control_groups(marks: set[str]) -> list[str]:
    walk = os.walk("/sys/fs/cgroup")
    return [f"{top}/{name}" for top, names, _ in walk for name in names if any(mark in name for mark in marks)]


def _docker_rows(listing: tuple[str, ...], marks: set[str]) -> list[list[str]]:
    """Name and labels of the daemon's objects that carry a mark; none where no daemon is used."""
    if _lacks_docker():
        return []
    names = "{{.Names}}" if listing[0] == "ps" else "{{.Name}}"
    lines = _run("docker", *listing, "--format", names + "\t{{.Labels}}").stdout.splitlines()
    return [line.split("\t") for line in lines if any(mark in line for mark in marks)]


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def _sockets() -> int:
    """How many sockets this process has open."""
    return sum(_target(entry).startswith("socket:") for entry in Path("/proc/self/fd").iterdir())


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


_SHARED_THREADS = re.compile(r"jupyter_sandbox|asyncio_|ThreadPoolExecutor|IPython|History")
"""Threads that live as long as the process: the client's background loop and the pools behind it."""


def _left_in_this_process(threads: set[threading.Thread], sockets: int) -> list[str]:
    """Threads and connections of this process that were not there before the test."""
    deadline = time.monotonic() + SETTLING
    while True:
        gc.collect()
        new = [thread for thread in _threads() - threads if not _SHARED_THREADS.search(thread.name)]
        # The background loop, once started, keeps the two ends of its own wake-up.
        more = max(0, _sockets() - sockets - 2)
        if time.monotonic() > deadline or not (new or more):
            return [f"thread {thread.name}" for thread in new] + ([f"{more} open sockets"] if more else [])
        time.sleep(0.1)


def _sweep(marks: set[str]) -> None:
    """Remove by force what the search found, so that one test's leak does not fail the next one."""
    for pid, _ in _processes(marks):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for name, *_ in _docker_rows(("ps", "-a", "--no-trunc"), marks):
        _run("docker", "rm", "-f", "-v", name)
    for name, *_ in _docker_rows(("volume", "ls"), marks):
        _run("docker", "volume", "rm", "-f", name)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The directory of the clone."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tracked_files(repository: Path) -> list[Path]:
    """Every file of the repository; where there is no git, every file that git would not ignore by its place."""
    if shutil.which("git"):
        listed = _run("git", "-C", str(repository), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        if listed.returncode == 0:
            paths = (repository / name for name in listed.stdout.split("\0") if name)
            return [path for path in paths if path.is_file()]
    hidden = {".git", ".venv", "node_modules", "__pycache__"}
    return [path for path in repository.rglob("*") if path.is_file() and not hidden & set(path.parts)]
