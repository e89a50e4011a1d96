"""What the tests of the magics share: notebooks run by nbclient, and a kernel to which a test talks itself."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop
from nbclient import NotebookClient

# nbclient keeps one event loop for this thread; it has to be there before a test looks for what is left behind.
ensure_event_loop()

LOAD = "%load_ext jupyter_sandbox"

Cells = list[nbformat.NotebookNode]
RunCells = Callable[[Sequence[str]], Cells]


def run_cells(sources: Sequence[str], *, allow_errors: bool = True) -> Cells:
    """Run ``sources`` as the cells of one notebook, after one that loads the extension; returns them with outputs."""
    cells = [nbformat.v4.new_code_cell(source) for source in (LOAD, *sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, allow_errors=allow_errors, kernel_name="python3").execute()
    return notebook.cells[1:]


def text_of(cell: nbformat.NotebookNode, name: str = "stdout") -> str:
    """What a cell wrote to a stream."""
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == name)


def errors_of(cell: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Name and text of each error output of a cell."""
    return [(o.ename, o.evalue) for o in cell.outputs if o.output_type == "error"]


class Kernel:
    """A notebook's kernel with the extension loaded, as a front end sees it: messages in, messages out."""

    def __init__(self, client: BlockingKernelClient, manager: KernelManager) -> None:
        self.client = client
        self.manager = manager

    def start(self, code: str, **options: Any) -> str:
        """Send a cell and return the id of the request."""
        return self.client.execute(code, **options)

    def next(self, msg_type: str, timeout: float = 60) -> dict[str, Any]:
        """The next iopub message of a type; others before it are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if message["msg_type"] == msg_type:
                return message

    def until_text(self, text: str) -> None:
        """Wait until a stream says ``text``."""
        seen = ""
        while text not in seen:
            seen += self.next("stream")["content"]["text"]

    def finish(self, msg_id: str, timeout: float = 60) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The reply's content to ``msg_id``, and the iopub messages of it that were not read yet."""
        reply = self.reply(msg_id, timeout)
        messages = []
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return reply["content"], messages
            messages.append(message)

    def reply(self, msg_id: str, timeout: float = 60) -> dict[str, Any]:
        """The reply to ``msg_id``."""
        deadline = time.monotonic() + timeout
        while True:
            reply = self.client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
            if reply["parent_header"]["msg_id"] == msg_id:
                return reply

    def run(self, code: str, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Run a cell to its end."""
        return self.finish(self.start(code, **options))

    def interrupt(self) -> None:
        """What the front end does for ■."""
        self.manager.interrupt_kernel()

    def question(self) -> dict[str, Any]:
        """The content of the next question to the user."""
        return self.client.get_stdin_msg(timeout=60)["content"]

    def drain(self) -> None:
        """Drop what has come so far."""
        with_messages = True
        while with_messages:
            try:
                self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                with_messages = False


@pytest.fixture
def bubblewrap_environment(environment: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A private environment in which sandboxes are bubblewrap's."""
    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", "bubblewrap")
    return environment


@pytest.fixture
def cells(bubblewrap_environment: Any) -> RunCells:
    """A function that runs cells as a notebook and returns them with their outputs."""
    return run_cells


@pytest.fixture
def kernel(bubblewrap_environment: Any) -> Iterator[Kernel]:
    """A notebook's kernel with the extension loaded."""
    manager = KernelManager(kernel_name="python3")
    manager.context.rcvhwm = 0  # A test that reads slowly must not lose what the kernel published.
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        kernel = Kernel(client, manager)
        assert kernel.run(LOAD)[0]["status"] == "ok"
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        client.context.destroy(linger=0)
