"""The manager as a process: there is one, it is private, and it goes when nobody needs it."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from manager_parts import Caller, ManagerProcess

HOST = "http://manager"
REAL = ("-m", "jupyter_sandbox.manager", "--ready-fd")


async def test_what_it_keeps_is_private_and_its_ready_line_names_the_socket(process: ManagerProcess) -> None:
    ready = await process.start()
    assert ready["ready"] is True
    told = json.loads((process.data / "manager.json").read_text())
    assert (told["socket"], told["pid"], told["api"]) == (ready["socket"], process.process.pid, "1.0")
    assert stat.S_IMODE(process.data.stat().st_mode) == 0o700
    for path in (process.data / "manager.json", process.data / "records.sqlite", Path(ready["socket"])):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_a_second_manager_says_that_one_runs_and_goes(process: ManagerProcess, place: Path) -> None:
    ready = await process.start()
    second = ManagerProcess(place)
    assert await second.start() == {"running": True, "socket": ready["socket"]}
    assert await second.wait() == 0
    await second.let_go()


async def test_it_is_found_from_another_runtime_directory(process: ManagerProcess, place: Path) -> None:
    ready = await process.start()
    second = ManagerProcess(place)
    (place / "elsewhere").mkdir()
    assert (await second.start(XDG_RUNTIME_DIR=str(place / "elsewhere")))["socket"] == ready["socket"]
    await second.wait()
    await second.let_go()


async def test_the_real_program_starts_without_a_sandbox_and_leaves_its_stdio(process: ManagerProcess) -> None:
    await process.start(*REAL)
    assert (await process.caller.ask("GET", f"{HOST}/version"))[1]["pid"] == process.process.pid
    targets = {str(Path(f"/proc/{process.process.pid}/fd/{number}").readlink()) for number in (0, 1, 2)}
    assert targets == {"/dev/null"}
    assert (process.data / "manager.log").exists()
    await process.let_go()
    assert await process.end(signal.SIGTERM) == 0


async def test_it_exits_when_nothing_is_in_memory_and_nobody_is_connected(process: ManagerProcess, place: Path) -> None:
    (place / "c").mkdir()
    (place / "c" / "jupyter_sandbox_config.py").write_text("c.SandboxManager.idle_exit = 0.3")
    ready = await process.start()
    await process.let_go()
    assert await process.wait() == 0
    assert not Path(ready["socket"]).exists()
    assert not (process.data / "manager.json").exists()


async def test_a_sandbox_in_memory_or_a_connection_keeps_it(process: ManagerProcess, place: Path) -> None:
    (place / "c").mkdir()
    (place / "c" / "jupyter_sandbox_config.py").write_text("c.SandboxManager.idle_exit = 0.2")
    await process.start()
    await process.caller.put("a")
    await process.caller.ask("POST", "a/sleep", {})
    await process.let_go()
    with pytest.raises(Exception, match="timed out"):
        process.process.wait(1)
    process.caller = Caller(Path(process.ready["socket"]))
    await process.caller.ask("DELETE", "a")
    await process.let_go()
    assert await process.wait() == 0


async def test_asked_to_end_it_stops_its_sandboxes_and_their_files_stay(process: ManagerProcess) -> None:
    await process.start()
    lifetime = (await process.caller.put("a"))[1]["sandbox"]["lifetime"]
    await process.let_go()
    assert await process.end(signal.SIGTERM) == 0
    assert (process.data / "sandboxes" / lifetime / "file").read_text() == "kept"
    assert [path for path in (process.place / "r").rglob("*") if path.is_socket()] == []
    await process.start()
    sandbox = (await process.caller.ask("GET", "a"))[1]["sandbox"]
    assert (sandbox["state"], sandbox["previous_end"]) == ("stopped", "the sandbox manager was stopped")


async def test_an_idle_manager_hands_over_and_its_sandboxes_go_on(process: ManagerProcess) -> None:
    await process.start()
    runtime = (await process.caller.put("a"))[1]["sandbox"]["runtime"]
    await process.caller.ask("POST", "a/sleep", {})
    assert (await process.caller.ask("GET", f"{HOST}/version"))[1]["idle"] is True
    assert (await process.caller.ask("POST", f"{HOST}/handover", {"package": "9.9"}))[0] == 202
    await process.let_go()
    assert await process.wait() == 0
    await process.start()
    assert (await process.caller.ask("GET", "a"))[1]["sandbox"]["runtime"] == runtime


async def test_a_manager_with_something_in_flight_does_not_hand_over(process: ManagerProcess) -> None:
    await process.start()
    await process.caller.put("a")
    async with process.caller.session.post(f"{HOST}/sandboxes/-/a/agent/exec", json={"command": "hold"}):
        assert (await process.caller.ask("GET", f"{HOST}/version"))[1]["idle"] is False
        status, body = await process.caller.ask("POST", f"{HOST}/handover", {"package": "9.9"})
        assert (status, body["error"]["code"]) == (409, "SANDBOX_BUSY")


async def test_another_major_version_is_refused_naming_both(process: ManagerProcess) -> None:
    await process.start()
    headers = {"X-Sandbox-Client": "9.0.0 2.0"}
    status, body = await process.caller.ask("GET", f"{HOST}/sandboxes", headers=headers)
    assert (status, body["error"]["code"]) == (500, "VERSION_MISMATCH")
    assert "9.0.0" in body["error"]["message"]
    assert "1.0" in body["error"]["message"]
    assert (await process.caller.ask("GET", f"{HOST}/version", headers=headers))[0] == 200


async def test_a_configuration_that_cannot_be_read_is_named_on_the_ready_line(
    process: ManagerProcess, place: Path
) -> None:
    (place / "c").mkdir()
    path = place / "c" / "jupyter_sandbox_config.py"
    for text in ("c.SandboxManager.sleep_after = 'soon'", "1/0", "c.SandboxManager.idle_exit = 'x'"):
        path.write_text(text)
        ready = await process.start()
        assert ready["error"]["code"] == "INVALID_OPTION"
        assert "jupyter_sandbox_config.py" in ready["error"]["message"]
        assert await process.wait() == 1
    path.unlink()


async def test_the_configuration_is_not_read_from_the_working_directory(process: ManagerProcess, place: Path) -> None:
    (place / "work").mkdir()
    (place / "work" / "jupyter_sandbox_config.py").write_text("1/0")
    before = Path.cwd()
    os.chdir(place / "work")
    try:
        assert (await process.start())["ready"] is True
    finally:
        os.chdir(before)


@pytest.mark.root
async def test_another_user_is_refused_even_where_he_can_reach_the_socket(process: ManagerProcess) -> None:
    ready = await process.start()
    path = Path(ready["socket"])
    path.chmod(0o666)
    for directory in (path.parent, path.parent.parent, process.place):
        directory.chmod(0o755)
    child = os.fork()
    if child == 0:
        os._exit(_ask_as_nobody(path))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _ask_as_nobody(path: Path) -> int:
    import socket

    os.setresuid(65534, 65534, 65534)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET /version HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
        answer = sock.recv(65536)
    return 0 if b" 403 " in answer and b"SHARED_SERVER" in answer else 1
