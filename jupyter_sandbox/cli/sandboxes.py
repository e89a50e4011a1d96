"""The commands about sandboxes: list, status, exec, sleep, wake, extend, destroy."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from .. import models
from ..client import show

if TYPE_CHECKING:
    from .. import Sandbox


def add(commands: Any) -> None:
    """Add the commands to the subparsers ``commands``."""
    listing = commands.add_parser("list", help="list your sandboxes; wakes none")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)

    status = _with_id(commands, "status", "show all about one sandbox; does not wake it")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(run=_status)

    run = _with_id(commands, "exec", "run a command in a sandbox, which is made or woken first")
    run.add_argument("--timeout", type=float, metavar="S", help="kill it and all that it started after S seconds")
    run.add_argument("--cwd", metavar="DIR", help="where it runs (default: /workspace)")
    run.add_argument("--stdin", action="store_true", help="pass this command's standard input on, read to its end")
    run.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="CMD...",
        help="one argument is a line for bash, several are a program and its arguments",
    )
    run.set_defaults(run=_exec, usage=run)

    sleep = _with_id(commands, "sleep", "freeze a sandbox; variables and processes stay")
    sleep.add_argument("--force", action="store_true", help="also while it is busy")
    sleep.set_defaults(run=_sleep)

    _with_id(commands, "wake", "wake a sandbox").set_defaults(run=_wake)

    extend = _with_id(commands, "extend", "put off the sleep of a running sandbox")
    extend.add_argument("duration", metavar="DURATION", help="from now on: 30s, 5m, 1h or seconds")
    extend.set_defaults(run=_extend)

    _with_id(commands, "destroy", "remove a sandbox and all that is in it; never asks").set_defaults(run=_destroy)


def _with_id(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--exact", action="store_true", help="keep uppercase letters of ID: another sandbox")
    parser.add_argument("id", metavar="ID")
    return parser


def _open(arguments: argparse.Namespace) -> Sandbox:
    from .. import get_sandbox

    return get_sandbox(arguments.id, normalize_id=not arguments.exact)


def _list(arguments: argparse.Namespace) -> int:
    from .. import list_sandboxes

    found = list_sandboxes()
    if arguments.json:
        _print_json([models.to_json(summary) for summary in found])
    elif found:
        print(show.table(found))
    else:
        print("There are no sandboxes.", file=sys.stderr)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    with _open(arguments) as sandbox:
        status = sandbox.status()
    if arguments.json:
        _print_json(models.to_json(status))
    else:
        print(show.status(status))
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    command = _command(arguments)
    stdin = sys.stdin.buffer.read() if arguments.stdin else None
    with _open(arguments) as sandbox:
        result = sandbox.exec(command, timeout=arguments.timeout, cwd=arguments.cwd, stdin=stdin)
    sys.stdout.write(result.stdout)
    sys.stdout.flush()
    sys.stderr.write(result.stderr)
    if result.timed_out:
        print(f"Killed after {arguments.timeout:g} s.", file=sys.stderr)
    return result.exit_code


def _command(arguments: argparse.Namespace) -> str:
    words: list[str] = arguments.command
    if words[:1] == ["--"]:
        words = words[1:]
    elif words and words[0].startswith("-"):
        arguments.usage.error(f"options come before ID: {words[0]}")
    if not words:
        arguments.usage.error("there is no command to run")
    return words[0] if len(words) == 1 else shlex.join(words)


def _sleep(arguments: argparse.Namespace) -> int:
    with _open(arguments) as sandbox:
        sandbox.sleep(force=arguments.force)
        print(f"{sandbox.id} sleeps.")
    return 0


def _wake(arguments: argparse.Namespace) -> int:
    with _open(arguments) as sandbox:
        sandbox.wake()
        print(f"{sandbox.id} runs.")
    return 0


def _extend(arguments: argparse.Namespace) -> int:
    with _open(arguments) as sandbox:
        sandbox.extend(_duration(arguments.duration))
        print(f"{sandbox.id} stays awake for {arguments.duration} at least.")
    return 0


def _duration(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:  # not a number of seconds: the client reads the unit, or names what it cannot read
        return text


def _destroy(arguments: argparse.Namespace) -> int:
    with _open(arguments) as sandbox:
        sandbox.destroy()
        print(f"{sandbox.id} is destroyed.")
    return 0


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
