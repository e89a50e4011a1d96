"""The way to the manager: versions, a manager that goes away, and what is never asked twice."""

import asyncio
import gc
import warnings

import pytest
from aiohttp import web

from jupyter_sandbox import SandboxError, get_async_sandbox, get_sandbox, list_sandboxes, temporary_sandbox
from jupyter_sandbox.client import connection, spawn
from jupyter_sandbox.client.connection import Connection

from .servers import ScriptedManager


def test_the_first_operation_makes_the_sandbox_with_what_was_given(serve, monkeypatch):
    manager = serve(ScriptedManager())
    monkeypatch.setenv("SANDBOX_PORT_TIMEOUT_MS", "20000")
    with get_sandbox("one", sleep_after="5m", limits={"memory": "1g"}) as sandbox:
        sandbox.exec("ls")
        sandbox.exec("ls")
    puts = [body for method, _, body in manager.requests if method == "PUT"]
    assert len(puts) == 1
    assert puts[0]["options"] == {"sleep_after": 300.0, "limits": {"memory": 1024**3}}
    assert puts[0]["environment"] == {"container_timeouts": {"port_ready_timeout_ms": 20000}}
    assert set(puts[0]["interpreter"]) == {"executable", "prefix", "base_prefix"}
    assert puts[0]["preload"] is False


def test_run_code_says_that_a_kernel_will_be_asked_for(serve, sandbox):
    manager = serve(ScriptedManager())
    sandbox.run_code("1")
    assert [body["preload"] for method, _, body in manager.requests if method == "PUT"] == [True]


def test_a_sandbox_that_was_destroyed_meanwhile_is_made_anew(serve, sandbox):
    manager = serve(ScriptedManager())
    sandbox.exec("ls")
    manager.sandboxes.clear()
    assert sandbox.exec("pwd").stdout == "pwd"
    assert manager.asked("PUT", "/one") == 2


def test_the_status_of_none_is_absent_and_looking_makes_none(serve, sandbox):
    manager = serve(ScriptedManager())
    assert sandbox.status().state == "absent"
    assert list_sandboxes() == []
    assert manager.asked("PUT", "/one") == 0


def test_a_temporary_sandbox_is_destroyed_also_after_an_exception(serve):
    manager = serve(ScriptedManager())

    def interrupted_in_the_block():
        with temporary_sandbox() as sandbox:
            sandbox.exec("ls")
            assert list(manager.sandboxes) == [sandbox.id]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_in_the_block()
    assert manager.sandboxes == {}


async def test_a_temporary_sandbox_in_a_coroutine(serve):
    manager = serve(ScriptedManager())
    async with temporary_sandbox() as sandbox:
        await sandbox.exec("ls")
        assert list(manager.sandboxes) == [sandbox.id]
    assert manager.sandboxes == {}


def test_steps_of_a_start_are_told(serve, sandbox):
    serve(ScriptedManager())
    steps = []
    sandbox.start(progress=steps.append)
    assert steps == ["container", "agent"]


class ManagerThatVanishes(ScriptedManager):
    """Goes away, as a killed process does, when it is asked for something whose path ends so."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending = ending

    async def before(self, request: web.Request) -> None:
        if request.path.endswith(self.ending):
            self.ending = "/never"
            await self.vanish()
            await asyncio.Event().wait()


def start_again(manager, monkeypatch):
    """Let the client start the manager that vanished."""
    starts = []

    async def start():
        starts.append(True)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(manager.start(), manager._loop))
        return spawn.find_socket()

    monkeypatch.setattr(spawn, "start_manager", start)
    return starts


def test_a_command_is_never_run_twice_when_the_manager_vanishes(serve, sandbox, monkeypatch):
    manager = serve(ManagerThatVanishes("/exec"))
    starts = start_again(manager, monkeypatch)
    with pytest.raises(SandboxError, match="may or may not have been done") as caught:
        sandbox.exec("rm x")
    assert caught.value.code == "MANAGER_UNAVAILABLE"
    assert manager.asked("POST", "/exec") == 1
    assert starts == []
    assert sandbox.exec("ls").stdout == "ls"
    assert starts == [True]


def test_reading_is_asked_again_when_the_manager_vanishes(serve, sandbox, monkeypatch):
    manager = serve(ManagerThatVanishes("/files"))
    starts = start_again(manager, monkeypatch)
    assert sandbox.read_file("a") == "content of a"
    assert manager.asked("GET", "/files") == 2
    assert starts == [True]


def test_a_manager_that_exited_between_two_calls_is_started_again_without_a_word(serve, sandbox, monkeypatch):
    manager = serve(ScriptedManager())
    starts = start_again(manager, monkeypatch)
    sandbox.exec("ls")
    manager.in_its_thread(manager.vanish())
    assert sandbox.exec("pwd").stdout == "pwd"
    assert starts == [True]


class ManagerThatCutsCommandsOff(ScriptedManager):
    async def exec(self, body):
        yield b'{"event": "stdout", "data": "x"}\n'
        await self.vanish()


def test_a_command_whose_stream_breaks_is_an_error(serve, sandbox):
    serve(ManagerThatCutsCommandsOff())
    with pytest.raises(SandboxError) as caught:
        sandbox.exec("ls")
    assert caught.value.code == "MANAGER_UNAVAILABLE"


class ManagerOfAnotherMajor(ScriptedManager):
    package, api = "9.0.0", "2.0"


def test_another_major_version_is_refused_with_both_versions_and_the_remedy(serve, sandbox):
    serve(ManagerOfAnotherMajor())
    with pytest.raises(
        SandboxError, match=r"0\.1\.0 \(API 1\.0\).*9\.0\.0 \(API 2\.0\).*Restart this kernel"
    ) as caught:
        sandbox.exec("ls")
    assert caught.value.code == "VERSION_MISMATCH"


class OlderManagerThatIsBusy(ScriptedManager):
    package, api = "0.0.9", "0.9"


def test_an_older_major_that_is_busy_says_how_to_end_it(serve, sandbox):
    manager = serve(OlderManagerThatIsBusy())
    with pytest.raises(SandboxError, match="Destroy or stop its sandboxes"):
        sandbox.exec("ls")
    assert manager.asked("POST", "/handover") == 0


class OlderManagerThatIsIdle(ScriptedManager):
    package, idle = "0.0.9", True

    async def _handover(self, request):
        self.package = "0.1.0"  # What answers next is the newer one that the client started.
        return web.json_response({}, status=202)


def test_an_older_idle_manager_hands_over(serve, sandbox, monkeypatch):
    manager = serve(OlderManagerThatIsIdle())

    async def found():
        return spawn.find_socket()

    monkeypatch.setattr(spawn, "start_manager", found)
    assert sandbox.exec("ls").stdout == "ls"
    assert manager.asked("POST", "/handover") == 1


def test_every_request_names_package_and_api_version(serve, sandbox):
    seen = set()

    class ManagerThatRemembersHeaders(ScriptedManager):
        async def before(self, request):
            seen.add(request.headers.get("X-Sandbox-Client"))

    serve(ManagerThatRemembersHeaders())
    sandbox.run_code("1")
    assert seen == {"0.1.0 1.0"}


class ManagerThatAnswersNonsense(ScriptedManager):
    http_status = 200

    async def _get(self, request):
        return web.Response(status=self.http_status, text="<html>")

    async def _list(self, request):
        return web.json_response({"sandboxes": [{"id": "a"}]})


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_not_json_is_an_error(serve, sandbox, status):
    manager = ManagerThatAnswersNonsense()
    manager.http_status = status
    serve(manager)
    with pytest.raises(SandboxError) as caught:
        sandbox.status()
    assert caught.value.code == "OUTPUT_INVALID"
    with pytest.raises(SandboxError, match="not a SandboxSummary"):
        list_sandboxes()


def test_a_manager_that_never_answers_is_an_error(serve, sandbox, monkeypatch):
    class ManagerThatHangs(ScriptedManager):
        async def before(self, request):
            await asyncio.sleep(30)

    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.2)
    serve(ManagerThatHangs())
    with pytest.raises(SandboxError, match="did not answer in time"):
        sandbox.status()


def test_a_manager_elsewhere_that_does_not_answer_is_named(sandbox, environment, monkeypatch):
    monkeypatch.setenv("JUPYTER_SANDBOX_URL", "http://127.0.0.1:9/sandbox/api/")
    with pytest.raises(SandboxError, match="JUPYTER_SANDBOX_URL") as caught:
        sandbox.exec("ls")
    assert caught.value.code == "MANAGER_UNAVAILABLE"


def test_nothing_may_be_where_the_manager_should_start(environment, sandbox, monkeypatch):
    monkeypatch.setattr(spawn.sys, "executable", "/nowhere/python")
    with pytest.raises(SandboxError, match="could not be started") as caught:
        sandbox.exec("ls")
    assert caught.value.code == "MANAGER_UNAVAILABLE"


async def test_handles_of_one_loop_share_a_connection_and_the_last_one_closes_it(serve):
    serve(ScriptedManager())
    one, two = get_async_sandbox("one"), get_async_sandbox("two")
    await asyncio.gather(one.exec("ls"), two.exec("ls"), two.run_code("1"))
    shared = Connection.here()
    await one.close()
    assert Connection.here() is shared
    await two.close()
    assert Connection.here() is None
    assert shared._looking is None


async def test_a_closed_handle_can_be_used_again(serve):
    serve(ScriptedManager())
    handle = get_async_sandbox("one")
    for _ in range(2):
        assert (await handle.run_code("x")).logs.stdout == ["x"]
        await handle.close()


def test_one_async_handle_works_on_several_loops(serve):
    serve(ScriptedManager())
    handle = get_async_sandbox("one")

    async def use():
        async with handle:
            return (await handle.run_code("x")).logs.stdout

    assert [asyncio.run(use()), asyncio.run(use())] == [["x"], ["x"]]


def test_a_loop_that_was_closed_before_its_handles_leaves_no_socket_open(serve):
    serve(ScriptedManager())
    handle = get_async_sandbox("one")

    async def use():
        assert (await handle.run_code("x")).logs.stdout == ["x"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Python says so of the transports, which is right.
        for _ in range(5):
            asyncio.run(use())
        assert len(Connection._of_loop) == 1
        handle = get_sandbox("one")
        handle.status()
        handle.close()
        gc.collect()
    assert Connection._of_loop == {}


def test_a_handle_that_nobody_closed_leaves_neither_sockets_nor_warnings(serve):
    serve(ScriptedManager())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_sandbox("one").exec("ls")
        gc.collect()


async def test_concurrent_first_operations_make_the_sandbox_together(serve):
    manager = serve(ScriptedManager())
    async with get_async_sandbox("one") as handle:
        await asyncio.gather(*(handle.exec("ls") for _ in range(10)))
    assert manager.asked("POST", "/exec") == 10
    assert manager.asked("PUT", "/one") == 1
