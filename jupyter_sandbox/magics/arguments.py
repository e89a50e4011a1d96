"""What may stand on a magic line: the options of ``%%sandbox`` and of the subcommands of ``%sandbox``.

Anything that is not understood is an error. A line is never guessed at, because the alternative to running a cell
in a sandbox would be to run it here.
"""

from __future__ import annotations

import argparse
import difflib
import keyword
import shlex
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

from ..errors import error
from ..ids import normalize
from ..options import SandboxOptions, parse_duration

OPTIONS = {
    "--sleep-after": "DURATION  sleep when unused that long (30s, 5m, 1h or seconds)",
    "--keep-alive": "never sleep by itself; must be destroyed",
    "--context": "NAME  the kernel in the sandbox; cells of one context share variables",
    "--language": "NAME  only python in this version",
    "--timeout": "DURATION  interrupt the cell after that long",
    "-i": "NAME  copy this variable into the sandbox first",
    "-o": "NAME  copy this variable back when the cell has succeeded",
    "--network": "none|internet  what it may reach; internet where that can be guarded",
    "--image": "NAME  the image of a new Docker sandbox",
    "--quiet": "say nothing while the sandbox starts",
}
"""Every option, with its help; also what tab completion offers."""

SANDBOX_OPTIONS = ("--sleep-after", "--keep-alive", "--network", "--image", "--quiet")
"""The options that ``%sandbox create`` takes."""

COMMANDS = {
    "list": "all sandboxes of yours",
    "status": "ID  one sandbox: state, isolation, limits, contexts",
    "create": "ID [options]  make a sandbox and start it",
    "exec": "ID COMMAND  run a shell command in it",
    "sleep": "ID  freeze it now; variables are kept",
    "wake": "ID  wake it",
    "extend": "ID DURATION  do not let it fall asleep before that long from now (30s, 5m, 1h or seconds)",
    "destroy": "ID  remove it with all its files, at once",
    "use": "ID  the sandbox of later bare %%sandbox cells",
    "help": "this text",
}
"""The subcommands of ``%sandbox``, with their help."""

LATER = {
    "expose": "`%sandbox expose`",
    "url": "`%sandbox url`",
    "logs": "`%sandbox logs`",
}
"""Subcommands that the next versions bring; refused by name until then."""


@dataclass(frozen=True)
class CellArguments:
    """The line of one ``%%sandbox`` cell. ``timeout`` in seconds; ``options`` only what was given."""

    sandbox_id: str | None = None
    context: str = "default"
    timeout: float | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    quiet: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class _Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises an error of our family instead of ending the process."""

    def __init__(self, prog: str, names: tuple[str, ...]) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=False)
        self.add_argument("sandbox_id", nargs="?", metavar="ID")
        for name in names:
            if name in ("--keep-alive", "--quiet"):
                self.add_argument(name, action="store_true", default=None)
            elif name in ("-i", "-o"):
                self.add_argument(name, action="append", metavar="NAME")
            else:
                self.add_argument(name)

    def error(self, message: str) -> NoReturn:
        raise error("INVALID_MAGIC", f"{self.prog}: {message}.")

    def read(self, line: str) -> argparse.Namespace:
        """Parse ``line``; an unknown option or a further word is an error that names it."""
        found, extra = self.parse_known_args(words(line, self.prog))
        if extra:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(extra[0], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            what = "an unknown option" if extra[0].startswith("-") else "one word too many"
            self.error(f"{extra[0]!r} is {what}{hint}")
        return found


@cache
def _parser(prog: str, names: tuple[str, ...]) -> _Parser:
    """The parser of one magic; making it takes longer than reading a line with it."""
    return _Parser(prog, names)


def words(line: str, prog: str) -> list[str]:
    """The words of ``line``, quoted as in a shell."""
    try:
        return shlex.split(line)
    except ValueError as exc:
        raise error("INVALID_MAGIC", f"{prog}: {exc} in {line[:80]!r}.") from None


def parse_cell(line: str) -> CellArguments:
    """Read the line of a ``%%sandbox`` cell; every value is checked here, before anything starts."""
    found = _parser("%%sandbox", tuple(OPTIONS)).read(line)
    if found.sandbox_id is not None:
        normalize(found.sandbox_id)
    if found.language not in (None, "python"):
        raise error("NOT_AVAILABLE_YET", f"--language {found.language!r} is not available in this version.")
    return CellArguments(
        sandbox_id=found.sandbox_id,
        context=_context(found.context),
        timeout=None if found.timeout is None else _duration(found.timeout, "--timeout"),
        inputs=_names("-i", found.i),
        outputs=_names("-o", found.o),
        quiet=bool(found.quiet),
        options=_sandbox_options(found),
    )


def parse_create(line: str) -> tuple[str, bool, dict[str, Any]]:
    """Read ``%sandbox create``: the ID, whether to be quiet, and the sandbox's options."""
    found = _parser("%sandbox create", SANDBOX_OPTIONS).read(line)
    return one_id(found.sandbox_id, "create"), bool(found.quiet), _sandbox_options(found)


def parse_command(line: str) -> tuple[str, str]:
    """Split ``%sandbox …`` into a known subcommand and the rest of the line, untouched."""
    name, _, rest = line.strip().partition(" ")
    if name in LATER:
        raise error("NOT_AVAILABLE_YET", f"{LATER[name]} is not available in this version.")
    if name and name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" There are {', '.join(COMMANDS)}."
        raise error("INVALID_MAGIC", f"%sandbox has no {name[:80]!r}.{hint}")
    return name or "help", rest.strip()


def one_id(text: str | None, command: str) -> str:
    """The single ID that ``%sandbox command`` needs, checked."""
    given = words(text or "", f"%sandbox {command}")
    if len(given) != 1:
        what = "needs the ID of a sandbox" if not given else f"takes one ID, not {len(given)} words"
        raise error("INVALID_MAGIC", f"%sandbox {command} {what}.")
    return normalize(given[0])


def parse_extend(line: str) -> tuple[str, float]:
    """Read ``%sandbox extend``: the ID, and the duration in seconds."""
    given = words(line, "%sandbox extend")
    if len(given) != 2:
        raise error(
            "INVALID_MAGIC", "%sandbox extend takes an ID and a duration, as in `%sandbox extend user-123 30m`."
        )
    return normalize(given[0]), _duration(given[1], "duration")


def _sandbox_options(found: argparse.Namespace) -> dict[str, Any]:
    given: dict[str, Any] = {"keep_alive": found.keep_alive, "network": found.network, "image": found.image}
    if found.sleep_after is not None:
        given["sleep_after"] = _duration(found.sleep_after, "--sleep-after")
    options = {name: value for name, value in given.items() if value is not None}
    SandboxOptions(**options)  # raises what get_sandbox would raise, before anything starts
    return options


def _duration(text: str, option: str) -> float:
    try:
        return parse_duration(float(text), option)
    except ValueError:  # not a number, or out of range: the unit form decides, and names the value as it was written
        return parse_duration(text, option)


def _context(name: str | None) -> str:
    if name is not None and (not name or len(name) > 100 or not name.isprintable()):
        raise error("INVALID_MAGIC", f"--context {name[:80]!r} is not a name of 1 to 100 printable characters.")
    return name or "default"


def _names(option: str, given: list[str] | None) -> tuple[str, ...]:
    for name in given or ():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise error("INVALID_MAGIC", f"{option} {name[:80]!r} is not the name of a variable.")
    return tuple(dict.fromkeys(given or ()))
