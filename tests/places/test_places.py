"""It runs wherever people keep their things: as root or not, in private clones, with private environments."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CELL = Path(__file__).with_name("cell.py")


@dataclass(frozen=True)
class Person:
    """An ordinary user of this machine with a private home."""

    name: str
    home: Path


@pytest.fixture
def person() -> Iterator[Person]:
    """A new user, who is gone afterwards with home and processes."""
    name = f"jsbtest-{os.getpid()}"
    home = Path(tempfile.mkdtemp(prefix="jsb-home-", dir="/tmp"))
    subprocess.run(["useradd", "--no-create-home", "--home-dir", home, "--shell", "/bin/bash", name], check=True)
    try:
        home.chmod(0o700)
        shutil.chown(home, name, name)
        yield Person(name, home)
    finally:
        end_processes_of(home.stat().st_uid)
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
        shutil.rmtree(home)


def end_processes_of(uid: int) -> None:
    """End what a user of this test still runs: the manager, which waits for a next sandbox."""
    for process in (entry for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == uid:
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture
def clone(tracked_files: list[Path], repository: Path) -> Iterator[Path]:
    """A copy of the repository in a directory that only its owner may enter."""
    with tempfile.TemporaryDirectory(prefix="jsb-clone-", dir="/tmp") as name:
        copy_of_the_repository(tracked_files, repository, Path(name))
        Path(name).chmod(0o700)
        yield Path(name)


def copy_of_the_repository(tracked_files: list[Path], repository: Path, target: Path) -> None:
    for path in tracked_files:
        copy = target / path.relative_to(repository)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def virtual_environment(target: Path, clone: Path) -> Path:
    """An environment like ours at ``target`` whose package is the clone's; returns its Python.

    Its libraries are ours, linked and not installed once more. Its base is Debian's Python, because others may
    not enter the home that ours may lie in.
    """
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", target], check=True)
    packages = next(target.glob("lib/python3*/site-packages"))
    ours = next(Path(sys.prefix).glob("lib/python3*/site-packages"))
    if ours.parent.name != packages.parent.name:
        pytest.skip(f"Debian's Python is {packages.parent.name}, and these tests run with {ours.parent.name}")
    packages.rmdir()
    subprocess.run(["cp", "--archive", *_cheaply(ours, target), ours, packages], check=True)
    for path in packages.glob("_editable_impl_jupyter_sandbox.pth"):
        path.unlink()
    (packages / "clone.pth").write_text(f"{clone}\n")
    return target / "bin" / "python"


def _cheaply(source: Path, target: Path) -> list[str]:
    """Hard links, where source and target are of one file system."""
    return ["--link"] if source.stat().st_dev == target.stat().st_dev else []


def run_cells(python: Path, clone: Path, **options: object) -> str:
    """Run the cells with ``python`` in ``clone``; return what they printed."""
    done = subprocess.run(
        [python, clone / "tests" / "places" / CELL.name],
        cwd=clone,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_a_cell_runs_here(engine_name: str, repository: Path) -> None:
    shown = run_cells(Path(sys.executable), repository)
    assert "cell in /workspace as sandbox" in shown
    assert "still in /workspace" in shown


def test_a_cell_runs_in_a_private_clone(engine_name: str, clone: Path) -> None:
    python = virtual_environment(clone / ".venv", clone)
    assert "still in /workspace" in run_cells(python, clone)


@pytest.mark.root
@pytest.mark.bubblewrap
def test_a_cell_runs_for_an_ordinary_user_with_everything_under_a_private_home(
    person: Person, tracked_files: list[Path], repository: Path
) -> None:
    clone = person.home / "clone"
    clone.mkdir(mode=0o700)
    copy_of_the_repository(tracked_files, repository, clone)
    python = virtual_environment(person.home / "environment", clone)
    # The clone is theirs; the libraries, which are linked to ours, stay as they are.
    subprocess.run(["chown", "--recursive", f"{person.name}:{person.name}", clone], check=True)
    runtime = person.home / "run"
    runtime.mkdir(mode=0o700)
    shutil.chown(runtime, person.name, person.name)
    shown = run_cells(
        python,
        clone,
        user=person.name,
        group=person.name,
        extra_groups=[],
        env={
            "HOME": str(person.home),
            "USER": person.name,
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(runtime),
            "JUPYTER_SANDBOX_ENGINE": "bubblewrap",
        },
    )
    assert "cell in /workspace as sandbox" in shown
    assert "still in /workspace" in shown
