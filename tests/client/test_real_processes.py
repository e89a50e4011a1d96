"""The client with the real manager, from other processes: many starts, a killed manager, forks, ■, and a clean exit."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from jupyter_sandbox import get_sandbox, list_sandboxes

pytestmark = pytest.mark.bubblewrap


@pytest.fixture(autouse=True)
def bubblewrap(environment, monkeypatch):
    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", "bubblewrap")


def python(script, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


def test_many_processes_that_start_at_once_end_up_with_one_manager(environment):
    script = "from jupyter_sandbox import get_sandbox; print(get_sandbox('shared').exec('echo x >> log').exit_code)"
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd="/") for _ in range(5)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["0\n"] * 5
    with get_sandbox("shared") as sandbox:
        assert sandbox.read_file("log") == "x\n" * 5
    managers = [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if b"jupyter_sandbox.manager" in contents(process / "cmdline")
        and str(environment.root).encode() in contents(process / "environ")
    ]
    assert managers == [environment.manager_pid]


def contents(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def kill(pid):
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([ended], [], [], 10)
    os.close(ended)


def test_a_killed_manager_is_replaced_and_variables_are_kept(environment):
    with get_sandbox("kept") as sandbox:
        sandbox.run_code("x = 42")
        sandbox.sleep()
        for operation in (lambda: sandbox.run_code("x").text, lambda: sandbox.exec("echo 42").stdout.strip()):
            pid = environment.manager_pid
            kill(pid)
            assert operation() == "42"
            assert environment.manager_pid != pid


def test_a_script_that_closes_nothing_ends_without_a_word(environment):
    result = python(
        """
        import asyncio
        from jupyter_sandbox import get_sandbox, get_async_sandbox

        sandbox = get_sandbox("one")
        print(sandbox.exec("echo 1").stdout, sandbox.run_code("1 + 1").text)

        async def main():
            handle = get_async_sandbox("one")
            print((await handle.run_code("2 + 2")).text)

        asyncio.run(main())
        get_sandbox("one").run_code("1")
        """,
        "-W",
        "error",
    )
    assert (result.stdout, result.stderr, result.returncode) == ("1\n 2\n4\n", "", 0)


def test_a_handle_works_in_a_forked_child_and_still_in_the_parent():
    result = python(
        """
        import multiprocessing, os
        from jupyter_sandbox import get_sandbox

        sandbox = get_sandbox("forked")
        sandbox.run_code("x = 1")

        def child(queue):
            queue.put(sandbox.run_code("x += 1; x").text)

        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        children = [context.Process(target=child, args=(queue,)) for _ in range(2)]
        [process.start() for process in children]
        print(sorted(queue.get(timeout=30) for _ in children))
        [process.join() for process in children]
        print(sandbox.run_code("x").text, sandbox.exec("echo parent").stdout)
        """
    )
    assert result.stdout == "['2', '3']\n3 parent\n\n", result.stderr


def test_a_handle_is_shared_by_threads():
    with get_sandbox("threads") as sandbox:
        sandbox.run_code("n = 0")
        texts = []
        threads = [threading.Thread(target=lambda: texts.append(sandbox.run_code("n += 1; n").text)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(texts) == [str(number) for number in range(1, 9)]


async def test_blocking_calls_work_while_the_callers_loop_runs():
    with get_sandbox("loop") as sandbox:
        assert sandbox.run_code("6 * 7").text == "42"
        assert sandbox.exec("echo 42").stdout == "42\n"


def test_a_keyboard_interrupt_stops_the_code_and_keeps_its_variables():
    with get_sandbox("interrupt") as sandbox:
        sandbox.run_code("x = 1")
        with pytest.raises(KeyboardInterrupt):
            sandbox.run_code(
                "print('begun', flush=True)\nimport time\ntime.sleep(60)",
                on_stdout=lambda _: os.kill(os.getpid(), signal.SIGINT),
            )
        assert sandbox.run_code("x").text == "1"


def test_a_keyboard_interrupt_kills_the_command_with_all_that_it_started():
    with get_sandbox("interrupt") as sandbox:
        sandbox.start()
        reader = get_sandbox("interrupt")

        def interrupt_when_it_runs():
            reader.exec("until [ -e begun ]; do sleep 0.05; done")
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=interrupt_when_it_runs)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            sandbox.exec("setsid sleep 1234 & touch begun; sleep 1234")
        thread.join()
        reader.close()
        gone = sandbox.exec("for i in $(seq 100); do pgrep -x sleep -f 1234 || exit 0; sleep 0.05; done; exit 1")
        assert gone.exit_code == 0, gone.stdout
    assert [summary.id for summary in list_sandboxes()] == ["interrupt"]


def test_importing_the_package_imports_none_of_its_parts_and_a_handle_no_transport():
    result = python(
        """
        import sys
        import jupyter_sandbox
        print(sorted(name for name in sys.modules if name.startswith("jupyter_sandbox")), "typing" in sys.modules)
        jupyter_sandbox.get_sandbox("one")
        print("aiohttp" in sys.modules, "IPython" in sys.modules)
        """,
        "-I",
    )
    assert result.stdout == "['jupyter_sandbox'] False\nFalse False\n", result.stderr
