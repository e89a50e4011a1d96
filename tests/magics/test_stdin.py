"""``input()`` and ``getpass()`` of a sandbox, asked through the notebook's own kernel."""

from __future__ import annotations

import pytest

from .conftest import Kernel

pytestmark = pytest.mark.bubblewrap


def test_questions_carry_the_name_of_the_sandbox_and_answers_arrive(kernel: Kernel) -> None:
    code = "from getpass import getpass\nprint('hello', input('name? '))\nprint(len(getpass('secret? ')))"
    cell = kernel.start(f"%%sandbox box --quiet\n{code}", allow_stdin=True)
    assert kernel.question() == {"prompt": "[sandbox box] name? ", "password": False}
    kernel.client.input("Ada")
    assert kernel.question() == {"prompt": "[sandbox box] secret? ", "password": True}
    kernel.client.input("12345")
    reply, messages = kernel.finish(cell)
    assert reply["status"] == "ok"
    assert "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream") == "hello Ada\n5\n"


def test_interrupt_instead_of_an_answer_interrupts_the_remote_cell(kernel: Kernel) -> None:
    cell = kernel.start("%%sandbox box\nx = 1\ninput('name? ')", allow_stdin=True)
    kernel.question()
    kernel.interrupt()
    assert kernel.finish(cell)[0]["ename"] == "KeyboardInterrupt"
    assert kernel.run("%%sandbox box\nx")[0]["status"] == "ok"
