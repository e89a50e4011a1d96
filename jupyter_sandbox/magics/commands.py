"""The subcommands of ``%sandbox``: each asks the client one thing and prints what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from IPython.core.interactiveshell import InteractiveShell

from ..client.loop import run
from ..errors import error
from ..models import SandboxStatus, SandboxSummary
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
        self._print(_table(list_sandboxes()))

    def _status(self, rest: str) -> None:
        handle = self._sessions.handle(one_id(rest, "status"))
        self._print(_described(run(handle.status())))

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
        self._print(f"{handle.id} stays awake for {_span(seconds)} at least.\n")

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


def _table(found: Sequence[SandboxSummary]) -> str:
    if not found:
        return "There are no sandboxes.\n"
    rows = [["ID", "STATE", "ENGINE", "LAST ACTIVE", "SLEEPS"]]
    rows += [[one.id, one.state, one.engine or "", _ago(one.last_active_at), _sleeps(one)] for one in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def _described(status: SandboxStatus) -> str:
    lines = [f"{status.id}: {status.state}" + (f" on {status.engine}" if status.engine else "")]
    lines += [f"  error: {status.error}"] if status.error else []
    lines += [f"  last active: {_ago(status.last_active_at)}"] if status.last_active_at else []
    lines += [f"  context {one.name} ({one.language}): {one.state}" for one in status.contexts]
    lines += [f"  {name}: {value:g}" for name, value in status.limits.items()]
    lines += [f"  {protection}" for protection in status.isolation]
    return "\n".join(lines) + "\n"


def _ago(then: datetime | None) -> str:
    return "" if then is None else f"{_span((datetime.now(UTC) - then).total_seconds())} ago"


def _sleeps(one: SandboxSummary) -> str:
    if one.keep_alive or one.sleeps_at is None:
        return "never" if one.keep_alive else ""
    return f"in {_span((one.sleeps_at - datetime.now(UTC)).total_seconds())}"


def _span(seconds: float) -> str:
    seconds = max(0, round(seconds))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
