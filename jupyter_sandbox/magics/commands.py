"""The subcommands of ``%sandbox``: each asks the client one thing and prints what it says."""

from __future__ import annotations

from collections.abc import Callable

from IPython.core.interactiveshell import InteractiveShell

from ..client import show
from ..client.loop import run
from ..errors import error
from .arguments import one_id, parse_create, parse_extend
from .help import help_text
from .progress import Progress
from .safe import clean_text
from .screen import Screen
from .sessions import Sessions


class Commands:
    """``%sandbox NAME …``.

    Parameters
    ----------
    sessions:
        The notebook's handles.
    forget:
        Called with the ID of a sandbox that was destroyed.

    Attributes
    ----------
    used:
        The ID of bare ``%%sandbox`` cells; None until ``%sandbox use``.
    """

    def __init__(self, shell: InteractiveShell, sessions: Sessions, forget: Callable[[str], None]) -> None:
        self._screen = Screen(shell)
        self._sessions = sessions
        self._forget = forget
        self.used: str | None = None

    def run(self, name: str, rest: str) -> None:
        """Run the subcommand ``name``, which :func:`~.arguments.parse_command` has checked."""
        getattr(self, f"_{name}")(rest)

    def _help(self, _rest: str) -> None:
        self._print(help_text())

    def _list(self, rest: str) -> None:
        from .. import list_sandboxes

        if rest:
            raise error("INVALID_MAGIC", f"%sandbox list takes no {rest[:80]!r}.")
        found = list_sandboxes()
        self._print(f"{show.table(found)}\n" if found else "There are no sandboxes.\n")

    def _status(self, rest: str) -> None:
        handle = self._sessions.handle(one_id(rest, "status"))
        self._print(f"{show.status(run(handle.status()))}\n")

    def _create(self, rest: str) -> None:
        sandbox_id, quiet, options = parse_create(rest)
        with Progress(self._screen, sandbox_id, quiet=quiet) as progress:
            self._sessions.start(sandbox_id, options, progress.step)
        self._print(f"{sandbox_id} is running.\n")

    def _exec(self, rest: str) -> None:
        sandbox_id, _, command = rest.partition(" ")
        handle = self._sessions.handle(one_id(sandbox_id, "exec"))
        if not command.strip():
            raise error("INVALID_MAGIC", "%sandbox exec needs a command after the ID.")
        result = run(handle.exec(command))
        self._screen.stream("stdout", clean_text(result.stdout))
        self._screen.stream("stderr", clean_text(result.stderr))
        self._screen.flush()
        if not result.success:
            raise error(
                "COMMAND_FAILED", f"The command ended with exit code {result.exit_code}.", exit_code=result.exit_code
            )

    def _sleep(self, rest: str) -> None:
        handle = self._sessions.handle(one_id(rest, "sleep"))
        run(handle.sleep())
        self._print(f"{handle.id} is asleep; its variables and files are kept.\n")

    def _wake(self, rest: str) -> None:
        handle = self._sessions.handle(one_id(rest, "wake"))
        run(handle.wake())
        self._print(f"{handle.id} is running.\n")

    def _extend(self, rest: str) -> None:
        sandbox_id, seconds = parse_extend(rest)
        handle = self._sessions.handle(sandbox_id)
        run(handle.extend(seconds))
        self._print(f"{handle.id} stays awake for {show.duration(seconds)} at least.\n")

    def _destroy(self, rest: str) -> None:
        handle = self._sessions.handle(one_id(rest, "destroy"))
        run(handle.destroy())
        self._sessions.forget(handle.id)
        self._forget(handle.id)
        self._print(f"{handle.id} is destroyed.\n")

    def _use(self, rest: str) -> None:
        self.used = one_id(rest, "use")
        self._print(f"Bare %%sandbox cells run in {self.used}.\n")

    def _print(self, text: str) -> None:
        self._screen.stream("stdout", clean_text(text))
        self._screen.flush()
