"""The client with the real manager, agent and engines: what a user does with a handle."""

import subprocess

import pytest

from jupyter_sandbox import (
    CommandFailed,
    Conflict,
    KernelDied,
    NotFound,
    get_async_sandbox,
    get_sandbox,
    list_sandboxes,
    temporary_sandbox,
)


def test_commands_files_and_code_in_one_sandbox(engine_name):
    with temporary_sandbox(limits={"memory": "512m"}) as sandbox:
        commands(sandbox)
        files(sandbox)
        code(sandbox)
        contexts(sandbox)
        lifecycle(sandbox, engine_name)
    assert list_sandboxes() == []


def commands(sandbox):
    result = sandbox.exec("echo out; echo err >&2; pwd; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n/workspace\n", "err\n", 3)
    assert sandbox.exec("cat", stdin=b"\xc3\xa9").stdout == "é"
    assert sandbox.exec("echo $A; pwd", env={"A": "b c"}, cwd="/tmp").stdout == "b c\n/tmp\n"
    assert sandbox.exec("no-such-program").exit_code == 127
    with pytest.raises(CommandFailed, match="exit code 1"):
        sandbox.exec("false", check=True)
    slow = sandbox.exec("echo before; sleep 60", timeout=0.5)
    assert (slow.timed_out, slow.exit_code, slow.stdout) == (True, 124, "before\n")


def files(sandbox):
    sandbox.write_file("a/b.txt", "é\n")
    sandbox.write_file("a/c.bin", bytes(range(256)) * 5000)
    assert sandbox.read_file("a/b.txt") == "é\n"
    assert sandbox.read_file("/workspace/a/c.bin", encoding=None) == bytes(range(256)) * 5000
    with pytest.raises(ValueError, match="encoding=None"):
        sandbox.read_file("a/c.bin")
    sandbox.mkdir("a/d/e")
    sandbox.move_file("a/b.txt", "a/d/e/f g?#%.txt")
    entries = sandbox.list_files("a", recursive=True)
    assert [entry.path.removeprefix("/workspace/a/") for entry in entries] == ["c.bin", "d", "d/e", "d/e/f g?#%.txt"]
    assert [entry.type for entry in entries] == ["file", "directory", "directory", "file"]
    assert entries[0].size == 256 * 5000
    with pytest.raises(Conflict):
        sandbox.delete_file("a")
    sandbox.delete_file("a", recursive=True)
    assert not sandbox.exists("a")
    with pytest.raises(NotFound, match=r"a/b\.txt"):
        sandbox.read_file("a/b.txt")


def code(sandbox):
    assert sandbox.run_code("x = 20\nx + 1").text == "21"
    seen = []
    execution = sandbox.run_code("print('a'); import sys; print('b', file=sys.stderr); x", on_stdout=seen.append)
    assert ("".join(execution.logs.stdout), "".join(execution.logs.stderr)) == ("a\n", "b\n")
    assert (execution.text, execution.error, "".join(seen)) == ("20", None, "a\n")
    assert sandbox.run_code("1 / 0").error.name == "ZeroDivisionError"
    assert sandbox.run_code("input()").error.name == "StdinNotImplementedError"
    with pytest.raises(TimeoutError, match="interrupted"):
        sandbox.run_code("import time\ntime.sleep(60)", timeout=0.5)
    assert sandbox.run_code("x").text == "20"


def contexts(sandbox):
    other = sandbox.create_code_context(env={"A": "1"}, cwd="/tmp")
    assert sandbox.run_code("import os; os.environ['A'], os.getcwd()", context=other).text == "('1', '/tmp')"
    assert sandbox.run_code("x", context=other).error.name == "NameError"
    assert {context.name for context in sandbox.status().contexts} == {"default", other.name}
    with pytest.raises(KernelDied, match="SIGKILL"):
        sandbox.run_code("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", context=other)
    with pytest.raises(Conflict) as caught:
        sandbox.run_code("1", context=other)
    assert caught.value.code == "STALE_HANDLE"
    assert sandbox.run_code("x").text == "20"


def lifecycle(sandbox, engine_name):
    status = sandbox.status()
    assert (status.state, status.engine) == ("running", engine_name)
    assert [line.id for line in list_sandboxes()] == [sandbox.id]
    sandbox.sleep()
    assert sandbox.status().state == "sleeping"
    assert sandbox.run_code("x").text == "20"
    sandbox.sleep()
    sandbox.wake()
    assert sandbox.status().state == "running"
    sandbox.destroy()
    assert sandbox.status().state == "absent"
    with pytest.raises(NotFound):
        sandbox.wake()
    assert sandbox.run_code("'x' in globals()").text == "False"


@pytest.mark.bubblewrap
async def test_the_async_face_does_many_things_at_once(environment, monkeypatch):
    import asyncio

    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", "bubblewrap")
    async with temporary_sandbox() as sandbox:
        results = await asyncio.gather(*(sandbox.exec(f"echo {number}") for number in range(20)))
        assert [result.stdout for result in results] == [f"{number}\n" for number in range(20)]
        cells = await asyncio.gather(*(sandbox.run_code(f"print({number}); {number}") for number in range(20)))
        assert [cell.text for cell in cells] == [str(number) for number in range(20)]
        assert ["".join(cell.logs.stdout) for cell in cells] == [f"{number}\n" for number in range(20)]


@pytest.mark.docker
def test_a_kernel_that_runs_out_of_memory_says_so(environment, monkeypatch):
    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", "docker")
    with temporary_sandbox(limits={"memory": "256m"}) as sandbox:
        assert sandbox.run_code("1").text == "1"
        with pytest.raises(KernelDied, match="ran out of memory"):
            sandbox.run_code("x = [bytearray(2**20) for _ in range(1000)]")
        assert sandbox.run_code("1").text == "1"


@pytest.mark.bubblewrap
def test_two_sandboxes_see_nothing_of_each_other(environment, monkeypatch):
    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", "bubblewrap")
    with get_sandbox("one") as one, get_sandbox("two") as two:
        one.write_file("secret", "1")
        one.run_code("secret = 1")
        assert not two.exists("secret")
        assert two.run_code("'secret' in globals()").text == "False"
        assert one.id != two.id


@pytest.mark.bubblewrap
async def test_a_slow_reader_of_a_real_channel_gets_every_byte(environment, monkeypatch):
    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", "bubblewrap")
    async with get_async_sandbox("flood") as sandbox:
        channel = await sandbox.channel()
        request = channel.execute("for _ in range(300): print('x' * 100_000)")
        size = 0
        async for message in request:
            assert request._bytes < 16 * 2**20
            if message.msg_type == "stream":
                size += len(message.content["text"])
        assert size == 300 * 100_001


def test_what_has_effects_is_not_a_subprocess_of_this_one(environment):
    """A manager lives in a session of its own, so that Ctrl-C does not reach it."""
    list_sandboxes()
    fields = subprocess.run(
        ["ps", "-o", "sid=,pid=", "-p", str(environment.manager_pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert fields[0] == fields[1]
