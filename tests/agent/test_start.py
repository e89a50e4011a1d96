"""How the agent starts and ends, from the package and from the zipapp, and that it answers under load."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import jupyter_sandbox
from jupyter_sandbox.engines import agent_zip

from .conftest import Agent, alive, names_in, running_agent, value

PACKAGE = Path(jupyter_sandbox.__file__).parent
SHIPPED = [PACKAGE / "errors.py", *sorted((PACKAGE / "agent").rglob("*.py"))]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_what_is_shipped_is_python_39_and_imports_nothing_else_of_the_package(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            assert node.module == "errors"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not [name for name in names if name.startswith("jupyter_sandbox")]


def test_the_zipapp_is_named_by_its_content_and_made_once(tmp_path: Path) -> None:
    first = agent_zip.build(tmp_path / "a")
    assert stat.S_IMODE(first.stat().st_mode) == 0o644
    made = first.stat().st_ino
    assert agent_zip.build(tmp_path / "a").stat().st_ino == made
    other = agent_zip.build(tmp_path / "b")
    assert (other.name, other.stat().st_size) == (first.name, first.stat().st_size)
    assert names_in(tmp_path / "a") == [first.name]


@pytest.mark.parametrize(("magic", "kind"), [(importlib.util.MAGIC_NUMBER, "pyc"), (b"xx\r\n", "py")])
def test_the_zipapp_uses_its_byte_code_or_with_another_python_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: bytes, kind: str
) -> None:
    monkeypatch.setattr(importlib.util, "MAGIC_NUMBER", magic)
    path = agent_zip.build(tmp_path)
    monkeypatch.undo()
    code = "import jupyter_sandbox.agent.wire as w; print(w.__file__)"
    found = subprocess.run(
        [sys.executable, "-Ic", f"import sys; sys.path.insert(0, {str(path)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == f"{path}/jupyter_sandbox/agent/wire.{kind}"


def test_nothing_slow_is_imported_before_the_hand_off(tmp_path: Path) -> None:
    path = agent_zip.build(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(path)!r}); import jupyter_sandbox.agent.__main__; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-Ic", code], capture_output=True, text=True, check=True)
    assert not {"tornado", "zmq", "asyncio", "subprocess", "argparse"} & set(found.stdout.split())


async def test_the_zipapp_runs_a_cell(tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(agent_zip.build(tmp_path))]
    async with running_agent({"preload": True, "runtime": "abc"}, command) as agent:
        assert agent.ready["ready"] is True
        assert agent.ready["package"] == jupyter_sandbox.__version__
        status = await agent.call("GET", "/status", 200)
        assert {**agent.ready, "runtime": "abc"}.items() - {("ready", True)} <= {
            (key, item) for key, item in status.items() if isinstance(item, str)
        }
        kernel = await agent.kernel()
        async with agent.channel(kernel["id"]) as channel:
            assert value(await channel.run("1+1")) == "2"


async def test_sigterm_ends_kernels_and_commands(tmp_path: Path) -> None:
    async with running_agent() as agent:
        kernel = await agent.kernel()
        async with agent.channel(kernel["id"]) as channel:
            pid = int(value(await channel.run("import os; os.getpid()")))
        left = int((await agent.exec("sleep 1000 & echo $!"))["stdout"])
        agent.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(agent.process.wait, 10) == 0
        while alive(left):
            await asyncio.sleep(0.01)
        assert not alive(pid)


async def test_an_agent_that_is_killed_leaves_nothing_running() -> None:
    async with running_agent() as agent:
        kernel = await agent.kernel()
        async with agent.channel(kernel["id"]) as channel:
            pid = int(value(await channel.run("import os; os.getpid()")))
            scratch = Path(eval(value(await channel.run("import ipykernel; ipykernel.get_connection_file()")))).parent
            assert scratch.is_dir()
        left = int((await agent.exec("setsid sleep 1000 & echo $!"))["stdout"])
        agent.process.kill()
        while alive(left) or alive(pid) or scratch.exists():
            await asyncio.sleep(0.01)


def test_it_connects_to_the_hand_off_socket_of_docker(tmp_path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "handoff.sock"))
    server.listen(1)
    process = subprocess.Popen([sys.executable, "-m", "jupyter_sandbox.agent", "--handoff", server.getsockname()])
    try:
        connection, _ = server.accept()
        connection.close()
        assert process.wait(10) != 0
    finally:
        process.kill()
        server.close()


def test_an_interpreter_without_ipykernels_packages_is_named_as_such(tmp_path: Path) -> None:
    path = agent_zip.build(tmp_path)
    ours, theirs = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    places = ["--workspace", str(tmp_path), "--home", str(tmp_path)]
    bare = os.path.realpath(sys.executable)
    process = subprocess.Popen(
        [bare, "-I", "-S", str(path), "--handoff-fd", str(theirs.fileno()), *places],
        pass_fds=[theirs.fileno()],
        stderr=subprocess.DEVNULL,
    )
    theirs.close()
    with ours, listener:
        socket.send_fds(ours, [(2).to_bytes(4, "big") + b"{}"], [listener.fileno()])
        answer = ours.makefile().readline()
    process.wait(10)
    assert '"IMAGE_NOT_USABLE"' in answer


async def test_a_home_that_cannot_be_written_leaves_a_working_python() -> None:
    async with running_agent(places=["--home", "/proc/nowhere"]) as agent:
        kernel = await agent.kernel()
        async with agent.channel(kernel["id"]) as channel:
            assert value(await channel.run("1+1")) == "2"


@pytest.mark.bubblewrap
async def test_as_process_1_of_its_namespace_it_reaps_what_nobody_else_does(tmp_path: Path) -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*unshare, sys.executable, "-I", str(agent_zip.build(tmp_path))]
    async with running_agent(command=command, end=signal.SIGKILL) as agent:  # unshare ignores SIGTERM
        kernel = await agent.kernel()
        async with agent.channel(kernel["id"]) as channel:
            assert value(await channel.run("import os; os.getppid() > 1")) == "True"
        spawner = (await agent.exec("cat /proc/1/task/1/children"))["stdout"].split()[0]
        await agent.exec(f"setsid -f sleep 0.05; kill -9 {spawner}; sleep 0.1")
        zombies = "grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
        while (await agent.exec(zombies))["stdout"].strip() != "0":
            await asyncio.sleep(0.02)
        assert (await agent.exec("echo on"))["stdout"] == "on\n"
        await agent.call("DELETE", f"/api/kernels/{kernel['id']}", 204)


WRONG_CALLS = [
    ("GET", "/", None, "ROUTE_NOT_FOUND"),
    ("GET", "/api/nothing", None, "ROUTE_NOT_FOUND"),
    ("DELETE", "/status", None, "ROUTE_NOT_FOUND"),
    ("POST", "/exec", b"{", "INVALID_REQUEST"),
    ("POST", "/exec", b"[]", "INVALID_REQUEST"),
    ("POST", "/exec", b"\xff", "INVALID_REQUEST"),
    ("POST", "/api/kernels", b"5", "INVALID_REQUEST"),
    ("PUT", "/env", b'{"env": 5}', "INVALID_REQUEST"),
    ("DELETE", "/api/kernels/x", None, "CONTEXT_NOT_FOUND"),
    ("POST", "/api/kernels/x/interrupt", None, "CONTEXT_NOT_FOUND"),
]


async def test_every_route_fails_in_the_same_way(agent: Agent) -> None:
    for method, path, body, code in WRONG_CALLS:
        async with agent.session.request(method, f"http://agent{path}", data=body) as answer:
            assert (await answer.json())["error"]["code"] == code, (method, path)


async def test_the_agent_answers_while_user_code_takes_all_cpus_and_all_processes(agent: Agent) -> None:
    burn = "import os\nfor _ in range(3 * os.cpu_count()): os.fork() or exec('while 1: pass')\nos.wait()"
    (agent.workspace / "burn.py").write_text(burn)
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        await channel.start("import os\nos.system('python burn.py')")
        await channel.until("execute_input")
        for _ in range(20):
            assert (await agent.call("GET", "/status", 200))["busy"]
        await agent.call("POST", f"/api/kernels/{kernel['id']}/interrupt", 204, json={"force": True})
        await agent.call("DELETE", f"/api/kernels/{kernel['id']}", 204)


async def test_the_agent_answers_while_user_code_takes_all_its_memory() -> None:
    async with running_agent({"memory": 2**29}) as agent:
        kernel = await agent.kernel()
        async with agent.channel(kernel["id"]) as channel:
            messages = await channel.run("x = []\nwhile True: x.append(bytes(2**24))")
            assert [m["content"]["ename"] for m in messages if m["type"] == "error"] == ["MemoryError"]
            assert (await agent.call("GET", "/status", 200))["busy"] == []
            assert value(await channel.run("x = None; 1+1")) == "2"


async def test_a_fifo_in_the_place_of_a_file_of_the_layered_python_does_not_hold_up_the_start(tmp_path: Path) -> None:
    for name in ("workspace", "home/.venv"):
        (tmp_path / name).mkdir(parents=True)
    os.mkfifo(tmp_path / "home/.venv/pyvenv.cfg")
    places = ["--workspace", str(tmp_path / "workspace"), "--home", str(tmp_path / "home")]
    async with running_agent(places=places) as agent:
        result = await agent.exec("python -c 'import sys; print(sys.prefix)'")
        assert result["stdout"] == f"{tmp_path}/home/.venv\n"
