"""The blocking face's loop: in a script, in a running loop, in threads, after a fork, and under a KeyboardInterrupt."""

import asyncio
import os
import signal
import threading

import pytest

from jupyter_sandbox.client.loop import Caller, background_loop, run


async def here():
    return threading.current_thread().name


def test_a_coroutine_runs_in_the_shared_daemon_thread():
    assert run(here()) == "jupyter_sandbox"
    thread = next(thread for thread in threading.enumerate() if thread.name == "jupyter_sandbox")
    assert thread.daemon


async def test_a_blocking_call_works_while_the_callers_loop_runs():
    assert run(here()) == "jupyter_sandbox"


def test_many_threads_share_one_loop():
    names = []
    threads = [threading.Thread(target=lambda: names.append(run(here()))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == ["jupyter_sandbox"] * 20
    assert sum(thread.name == "jupyter_sandbox" for thread in threading.enumerate()) == 1


def test_an_exception_is_raised_in_the_calling_thread():
    async def fail():
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        run(fail())


def test_a_blocking_call_on_the_background_loop_itself_is_refused():
    async def deadlock():
        run(here())

    with pytest.raises(RuntimeError, match="use AsyncSandbox"):
        run(deadlock())


def test_a_forked_child_gets_a_loop_of_its_own_and_the_parents_stays():
    run(here())
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if run(here()) == "jupyter_sandbox" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run(here()) == "jupyter_sandbox"


def test_a_keyboard_interrupt_cancels_the_coroutine_and_waits_for_its_cleanup():
    cleaned = []

    async def work():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert cleaned == [True]


def test_a_second_keyboard_interrupt_does_not_wait():
    async def stubborn():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGINT)
            await release.wait()

    release = asyncio.Event()
    with pytest.raises(KeyboardInterrupt):
        run(stubborn())
    background_loop().call_soon_threadsafe(release.set)


def test_callbacks_run_in_the_calling_thread_in_order():
    seen = []
    caller = Caller()
    callback = caller.here(lambda number: seen.append((number, threading.current_thread())))

    async def work():
        for number in range(3):
            await callback(number)
        return "done"

    assert caller.run(work()) == "done"
    assert seen == [(number, threading.current_thread()) for number in range(3)]


def test_an_error_of_a_callback_cancels_the_coroutine_and_is_raised():
    cancelled = []

    async def work():
        try:
            await callback()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    def fail():
        raise ZeroDivisionError

    caller = Caller()
    callback = caller.here(fail)
    with pytest.raises(ZeroDivisionError):
        caller.run(work())
    assert cancelled == [True]
