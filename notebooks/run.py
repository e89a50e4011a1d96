"""Runs a notebook through a real kernel and prints each cell and its outputs as they come.

    python notebooks/run.py notebooks/quickstart.ipynb

Ends with exit code 1 if a cell fails that is not tagged ``raises-exception``.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Printer(NotebookClient):
    """A notebook client that prints what it does; the notebook itself is run as every other client does."""

    color = sys.stdout.isatty()
    _fresh_line = True

    def say(self, text: str, style: str = "") -> None:
        """Print ``text`` at once, in the ANSI ``style`` on a terminal and plain elsewhere."""
        shown = f"\x1b[{style}m{text}\x1b[0m" if self.color and style else text
        sys.stdout.write(shown if self.color else _ANSI.sub("", shown))
        sys.stdout.flush()
        self._fresh_line = text.endswith("\n")

    def say_line(self, text: str, style: str = "") -> None:
        """Print ``text`` as lines of its own."""
        self.say(("" if self._fresh_line else "\n") + text.rstrip("\n"), style)
        self.say("\n")

    async def async_execute_cell(self, cell: Any, cell_index: int, *args: Any, **keywords: Any) -> Any:
        """Print the cell, then run it; prose has no outputs and is only printed."""
        if cell.cell_type == "markdown":
            self.say_line("\n" + cell.source, "2")
        elif cell.cell_type == "code":
            self.say_line("\n" + "\n".join(f"│ {line}" for line in cell.source.splitlines()), "36")
        return await super().async_execute_cell(cell, cell_index, *args, **keywords)

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Print one output when its message arrives."""
        out = super().output(outs, msg, display_id, cell_index)
        if out is None:
            return None
        if out.output_type == "stream":
            self.say(out.text, "33" if out.name == "stderr" else "")
        elif out.output_type == "error":
            self.say_line("\n".join(out.traceback))
        else:
            self.say_line(described(out.data))
        return out


def described(data: dict[str, Any]) -> str:
    """A MIME bundle as text: its image by type and size, else its plain text, else the types it has."""
    for kind, content in data.items():
        if kind.startswith("image/"):
            return f"[{kind}, {_size(kind, content) / 1000:.0f} kB]"
    return str(data.get("text/plain") or f"[{', '.join(data)}]")


def _size(kind: str, content: str) -> int:
    return len(content) if kind == "image/svg+xml" else len(content) * 3 // 4


def run(path: Path) -> int:
    """Run the notebook at ``path`` in its own directory; return the exit code."""
    notebook = nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    client = Printer(
        notebook,
        kernel_name="python3",
        timeout=120,
        resources={"metadata": {"path": str(path.parent)}},
        # The kernel would warn on stderr that it listens on this machine's loopback, as every local kernel does.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    client.say_line(f"{path.name} ".ljust(min(80, shutil.get_terminal_size().columns), "─"), "1")
    try:
        client.execute()
    except (CellExecutionError, DeadKernelError, TimeoutError) as failure:
        client.say_line(f"\nThe notebook stopped: {_said(failure)}", "31")
        return 1
    client.say_line("\nEvery cell ran.", "32")
    return 0


def _said(failure: Exception) -> str:
    if isinstance(failure, CellExecutionError):
        return f"{failure.ename}: {failure.evalue}"
    return str(failure) or type(failure).__name__


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
