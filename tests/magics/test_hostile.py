"""Cells that mean harm, run for real: neither manager nor notebook is hurt, and the next cell runs."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from .conftest import Kernel, RunCells, errors_of, text_of

pytestmark = pytest.mark.bubblewrap

MIB = 1024 * 1024

FORGE = """%%sandbox a --quiet
import ipykernel.kernelapp
kernel = get_ipython().kernel
def send(msg_type, content, parent=None, metadata=None, channel=None):
    parent = parent or kernel.get_parent()
    kernel.session.send(channel or kernel.iopub_socket, msg_type, content, parent=parent, metadata=metadata)
"""


def test_a_hundred_megabytes_of_output_arrive_in_order_or_are_cut(kernel: Kernel) -> None:
    code = (
        "import sys\nfor i in range(100): sys.stdout.write(chr(97 + i % 26) * 999_999 + '\\n')\nprint('x' * 50_000_000)"
    )
    reply, messages = kernel.run(f"%%sandbox a --quiet\n{code}")
    assert reply["status"] == "ok"
    pieces = [m["content"]["text"] for m in messages if m["msg_type"] == "stream"]
    text = "".join(pieces)
    assert len(text) == 100 * 1_000_000 + 50_000_001
    assert text[:999_999] == "a" * 999_999
    assert max(map(len, pieces)) <= 8 * MIB
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1024 * 1024  # KiB, of the largest child


def test_output_beyond_the_limit_is_cut_and_the_cell_goes_on(cells: RunCells) -> None:
    endless = "import sys\nfor i in range(40): sys.stdout.write('x' * 100_000 + '\\n')\ny = 1"
    ran = cells(
        ["%config SandboxMagics.output_limit = 2 * 1024 * 1024", f"%%sandbox a\n{endless}", "%%sandbox a\nprint(y)"]
    )
    assert len(text_of(ran[1])) <= 2 * MIB
    assert text_of(ran[1], "stderr").count("is cut at 2 MiB") == 1
    assert text_of(ran[2]) == "1\n"


def test_forged_messages_change_nothing_and_plant_nothing(kernel: Kernel) -> None:
    forge = FORGE + (
        "kinds = 'stream', 'display_data', 'execute_result', 'update_display_data', 'comm_open', 'comm_msg'\n"
        "for content in ({}, {'data': 5}, {'data': {'text/plain': 5}, 'metadata': 7}, {'name': [], 'text': {}}):\n"
        "    for kind in kinds:\n"
        "        send(kind, content)\n"
        "for kind in ('execute_input', 'shutdown_reply', 'kernel_info_reply', 'no_such', 'status', 'input_request'):\n"
        "    send(kind, {'code': 'x', 'execution_state': 'busy', 'restart': False})\n"
        "send('stream', {'name': 'stdout', 'text': 'other'}, parent={'header': {'msg_id': 'of-nobody'}})\n"
        "send('stream', {'name': 'stdout', 'text': 'huge'}, metadata={'x': 'y' * 1_000_000})\n"
        "get_ipython().set_next_input('import os; os.remove(\"notebook\")')\n"
        "print('done')"
    )
    reply, messages = kernel.run(forge)
    assert reply["status"] == "ok"
    assert reply["payload"] == []
    shown = [m for m in messages if m["msg_type"] not in ("status", "execute_input")]
    assert {m["msg_type"] for m in shown} <= {"stream", "display_data", "execute_result"}
    assert all(m["metadata"] == {} for m in shown)
    assert all(m["parent_header"]["msg_id"] == reply_parent(messages) for m in shown)
    texts = "".join(m["content"]["text"] for m in shown if m["msg_type"] == "stream")
    assert texts == "hugedone\n"
    assert kernel.run("%%sandbox a\n1")[0]["status"] == "ok"


def reply_parent(messages: list[dict[str, Any]]) -> str:
    return next(m["parent_header"]["msg_id"] for m in messages if m["msg_type"] == "execute_input")


def test_an_update_cannot_change_a_display_of_the_notebook(kernel: Kernel) -> None:
    kernel.run("display('mine', display_id='mine')")
    _, messages = kernel.run(
        "%%sandbox a --quiet\nfrom IPython.display import update_display\nupdate_display('evil', display_id='mine')"
    )
    updates = [m for m in messages if m["msg_type"] == "update_display_data"]
    assert [m["content"]["transient"] for m in updates] == [{"display_id": "sandbox/a/mine"}]


def test_ten_thousand_comms_are_bounded_and_the_notebook_goes_on(kernel: Kernel) -> None:
    flood = FORGE + (
        "state = {'_model_module': '@jupyter-widgets/base', '_model_module_version': '2.0.0',\n"
        "         '_view_module': '@jupyter-widgets/base', '_view_module_version': '2.0.0',\n"
        "         '_model_name': 'LayoutModel', '_view_name': 'LayoutView'}\n"
        "for i in range(10_000):\n"
        "    send('comm_open', {'comm_id': f'{i:032x}', 'target_name': 'jupyter.widget', 'data': {'state': state}})\n"
        "for i in range(100):\n"
        "    send('comm_open', {'comm_id': f'evil{i:028x}', 'target_name': 'evil', 'data': {'state': state}})\n"
    )
    reply, messages = kernel.run(flood)
    assert reply["status"] == "ok"
    opened = [m for m in messages if m["msg_type"] == "comm_open"]
    assert len(opened) == 2000
    assert {m["content"]["target_name"] for m in opened} == {"jupyter.widget"}
    assert "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream").count("\n") == 1
    assert kernel.run("%%sandbox a\n1")[0]["status"] == "ok"


def test_broken_bytes_on_the_channel_end_the_cell_with_an_error_and_the_next_one_runs(cells: RunCells) -> None:
    ran = cells(
        [
            "%%sandbox a\nimport sys, os\nos.write(1, b'\\xff\\xfe\\n'); sys.stdout.write('ok \\udcff \\ud800 end\\n')",
            "%%sandbox a\nsys.stdout.flush()\n1",
            "%%sandbox a\nprint('fine')",
        ]
    )
    assert "fine" in text_of(ran[-1])
    assert errors_of(ran[-1]) == []
