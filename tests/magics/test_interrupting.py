"""■ and ``--timeout``: the steps by themselves, then with a real kernel that reacts, and one that does not."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest

from jupyter_sandbox.magics.interrupting import STEP, Escalation

from .conftest import Kernel, RunCells, errors_of, text_of


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_press_interrupts_then_forces_then_gives_up() -> None:
    clock = Clock()
    escalation = Escalation(clock=clock)
    assert escalation.wait() is None
    assert escalation.press() == "interrupt"
    assert escalation.wait() == STEP
    assert escalation.due() is None
    clock.now += STEP
    assert escalation.due() == "force"
    clock.now += STEP
    assert escalation.due() == "give_up"
    assert not escalation.timed_out


def test_a_second_press_restarts_the_context_at_any_step() -> None:
    clock = Clock()
    escalation = Escalation(clock=clock)
    escalation.press()
    clock.now += STEP
    escalation.due()
    assert escalation.press() == "restart"


def test_a_timeout_goes_the_same_way_by_itself() -> None:
    clock = Clock()
    escalation = Escalation(10, clock)
    assert escalation.wait() == 10
    clock.now = 10
    assert escalation.due() == "interrupt"
    assert escalation.timed_out
    clock.now += STEP
    assert escalation.due() == "force"


def test_a_press_after_the_timeout_is_the_first_press() -> None:
    clock = Clock()
    escalation = Escalation(10, clock)
    clock.now = 10
    escalation.due()
    assert escalation.press() == "force"


def test_a_press_before_the_timeout_is_not_a_timeout() -> None:
    clock = Clock()
    escalation = Escalation(10, clock)
    escalation.press()
    clock.now = STEP
    assert escalation.due() == "force"
    assert not escalation.timed_out


def texts(messages: list[dict[str, Any]]) -> str:
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")


SLEEPS = """%%sandbox s
import time
x = 1
print("begun", flush=True)
try:
    time.sleep(60)
"""


@pytest.mark.bubblewrap
def test_interrupt_ends_the_remote_cell_and_keeps_its_variables(kernel: Kernel) -> None:
    cell = kernel.start(f"{SLEEPS}finally:\n    print('tidied')")
    kernel.until_text("begun")
    kernel.interrupt()
    reply, messages = kernel.finish(cell)
    assert reply["ename"] == "KeyboardInterrupt"
    assert "tidied" in texts(messages)
    tracebacks = "".join("".join(message["content"].get("traceback", [])) for message in messages)
    assert "time.sleep(60)" in re.sub(r"\x1b\[[\d;]*m", "", tracebacks)
    assert kernel.run("%%sandbox s\nx")[0]["status"] == "ok"
    # Code that catches the interrupt goes on, and the cell succeeds.
    cell = kernel.start(f"{SLEEPS}except KeyboardInterrupt:\n    print('caught')")
    kernel.until_text("begun")
    kernel.interrupt()
    reply, messages = kernel.finish(cell)
    assert reply["status"] == "ok"
    assert "caught" in texts(messages)


IGNORES = """%%sandbox s
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal = lambda *_: None
print("begun", flush=True)
end = time.monotonic() + 120
while time.monotonic() < end:
    time.sleep(0.2)
    print(".", end="", flush=True)
"""


@pytest.mark.bubblewrap
def test_code_that_ignores_interrupts_leaves_the_cell_and_a_second_press_restarts(kernel: Kernel) -> None:
    cell = kernel.start(IGNORES)
    kernel.until_text("begun")
    kernel.interrupt()
    reply, _ = kernel.finish(cell)
    assert (reply["ename"], "still busy" in reply["evalue"]) == ("Conflict", True)
    waiting = kernel.start("%%sandbox s\nprint('mine')")
    kernel.next("execute_input")
    # Two signals at once would be one.
    pressing = threading.Event()
    presser = threading.Thread(target=press_again_and_again, args=(kernel, pressing))
    presser.start()
    reply = kernel.reply(waiting)["content"]
    pressing.set()
    presser.join()
    assert reply["ename"] == "KernelDied"
    assert "restarted" in reply["evalue"]
    reply, messages = kernel.run("%%sandbox s\nprint('again')")
    assert reply["status"] == "ok"
    assert "again" in texts(messages)


def press_again_and_again(kernel: Kernel, enough: threading.Event) -> None:
    for _ in range(2):
        enough.wait(0.5)
        kernel.interrupt()


@pytest.mark.bubblewrap
def test_interrupt_while_a_sandbox_starts_runs_nothing(bubblewrap_environment: Any, kernel: Kernel) -> None:
    cell = kernel.start("%%sandbox s\nopen('ran', 'w').close()")
    while bubblewrap_environment.manager_pid is None:
        time.sleep(0.01)
    kernel.interrupt()
    reply, _ = kernel.finish(cell)
    assert reply["ename"] == "KeyboardInterrupt"
    _, messages = kernel.run("%sandbox exec s ls")
    assert "ran" not in texts(messages)


@pytest.mark.bubblewrap
def test_a_timeout_interrupts_and_keeps_the_variables(cells: RunCells) -> None:
    slow, after = cells(["%%sandbox s --timeout 1\nx = 5\nimport time; time.sleep(60)", "%%sandbox s\nprint(x)"])
    assert [name for name, _ in errors_of(slow)] == ["ExecutionTimeout"]
    assert text_of(after) == "5\n"
