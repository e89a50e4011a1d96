"""``%sandbox`` and ``%%sandbox``: reads the line, and leaves the work to the modules beside it."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Enum, Int, TraitError, validate

from ..errors import SandboxError, error
from . import variables
from .afterwards import Afterwards
from .arguments import CellArguments, parse_cell, parse_command
from .cell import Cell
from .commands import Commands
from .errors import plain_errors
from .progress import Progress
from .relay import MIB
from .safe import FullOutput, SafeOutput
from .screen import Screen
from .sessions import Opened, Sessions


@magics_class
class SandboxMagics(Magics):
    """Run cells and commands in sandboxes; see ``%sandbox help``."""

    output = Enum(
        ["safe", "full"],
        default_value="safe",
        help=(
            "What of a sandbox's rich output is shown. 'safe': text, images, LaTeX, JSON and charts; HTML and Markdown "
            "sanitized, HTML with scripts in a frame of its own origin; no JavaScript. 'full': all of it, as the "
            "sandbox sent it. Can only be set in a configuration file, because a notebook must not widen it."
        ),
    ).tag(config=True)
    output_limit = Int(256 * MIB, min=MIB, help="Bytes of output that one cell may show.").tag(config=True)

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell, **kwargs: Any) -> None:
        super().__init__(shell, **kwargs)
        self._configured_output = self.output
        self._afterwards = Afterwards(shell, self._rules)
        self._sessions = Sessions(self._afterwards.attach)
        self._commands = Commands(shell, self._sessions, self._afterwards.forget)

    @validate("output")
    def _only_from_configuration(self, proposal: Any) -> str:
        if proposal["value"] != getattr(self, "_configured_output", proposal["value"]):
            raise TraitError("SandboxMagics.output can only be set in a configuration file of IPython.")
        return str(proposal["value"])

    @no_var_expand
    @line_cell_magic
    def sandbox(self, line: str, cell: str | None = None) -> None:
        """``%%sandbox ID`` runs the cell in a sandbox; ``%sandbox help`` says what else there is."""
        with plain_errors():
            if cell is None:
                self._commands.run(*parse_command(line))
            else:
                self._run_cell(parse_cell(line), cell)

    def close(self) -> None:
        """Let go of channels; the sandboxes go on. Called when the extension is unloaded."""
        self._sessions.forget_all()

    def _run_cell(self, arguments: CellArguments, code: str) -> None:
        sandbox_id = arguments.sandbox_id or self._commands.used
        if sandbox_id is None:
            raise error(
                "INVALID_MAGIC",
                "%%sandbox needs the ID of a sandbox.",
                remedy="Write `%%sandbox ID`, or `%sandbox use ID` once.",
            )
        if not code.strip():
            raise error("INVALID_MAGIC", "The cell has no code below its %%sandbox line.", remedy="")
        packed = variables.pack(arguments.inputs, self.shell.user_ns)
        try:
            opened = self._run_on_channel(sandbox_id, arguments, code, packed)
        except SandboxError as problem:
            if problem.details.get("sent") is not False:
                raise
            # The channel broke since the last cell, and nothing of this one was sent.
            opened = self._run_on_channel(sandbox_id, arguments, code, packed)
        if arguments.outputs:
            self.shell.user_ns.update(variables.pull(opened.handle, opened.channel, arguments.outputs))

    def _run_on_channel(self, sandbox_id: str, arguments: CellArguments, code: str, packed: bytes | None) -> Opened:
        screen = Screen(self.shell)
        with Progress(screen, sandbox_id, quiet=arguments.quiet) as progress:
            opened = self._sessions.open(sandbox_id, arguments.context, arguments.options, progress.step)
        if opened.notice is not None:
            screen.note(opened.notice)
        if packed is not None:
            variables.push(opened.handle, opened.channel, packed)
        with self._afterwards.cell(opened.handle.id, opened.channel, self.output_limit, screen) as (relay, on_request):
            Cell(opened.handle.id, opened.channel, relay, self.shell, arguments.timeout).run(code, on_request)
        return opened

    def _rules(self, has_widget: Any) -> SafeOutput:
        return (FullOutput if self.output == "full" else SafeOutput)(has_widget)
