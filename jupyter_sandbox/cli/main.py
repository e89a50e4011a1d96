"""The entry point: what the command line may say, and how errors, warnings and Ctrl-C come out of it."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..errors import SandboxError
from . import build, doctor, sandboxes, trust

USAGE_ERROR = 2
FAILED = 1
INTERRUPTED = 130
"""128 + SIGINT, as a shell has it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of ``jupyter sandbox``.

    Parameters
    ----------
    argv:
        What follows ``jupyter sandbox``. Default: that of this process.

    Returns
    -------
    int
        The exit code: 0, 1 for an error, 2 for a command line that cannot be read, 130 for Ctrl-C, and for
        ``exec`` that of the command.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if "run" not in arguments:
        parser.print_help(sys.stderr)
        return USAGE_ERROR
    warnings.showwarning = _show_warning
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except SandboxError as exc:
        return _fail(exc.message, exc.remedy)
    except KeyboardInterrupt:
        return _fail("Interrupted.", code=INTERRUPTED)
    except BrokenPipeError:  # whoever read our output had enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as exc:  # a bug of ours; a traceback helps no user, who can ask for it
        if os.environ.get("JUPYTER_SANDBOX_DEBUG"):
            raise
        remedy = "Please report it; JUPYTER_SANDBOX_DEBUG=1 shows where it happened."
        return _fail(f"Something that should not happen happened: {type(exc).__name__}: {exc}", remedy)
    return code


def _run(arguments: argparse.Namespace) -> int:
    """Run the command; where somebody sits at a terminal, offer to build the image that it lacks."""
    try:
        return int(arguments.run(arguments))
    except SandboxError as exc:
        if exc.code != "IMAGE_MISSING" or exc.details.get("image") != build.DEFAULT_TAG or not _wants(exc.message):
            raise
    code = main(["build"])
    return int(arguments.run(arguments)) if code == 0 else code


def _wants(message: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{message} Build it now? That takes a minute or two. [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyter sandbox", description="Sandboxes for Jupyter: isolated places with a state of their own."
    )
    parser.add_argument("--version", action="version", version=f"jupyter-sandbox {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    build.add(commands)
    sandboxes.add(commands)
    doctor.add(commands)
    trust.add(commands)
    version = commands.add_parser("version", help="say which version this is")
    version.set_defaults(run=_version)
    return parser


def _version(_: argparse.Namespace) -> int:
    print(f"jupyter-sandbox {__version__}")
    return 0


def _fail(message: str, remedy: str = "", *, code: int = FAILED) -> int:
    for line in filter(None, (message, remedy)):
        print(line, file=sys.stderr)
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"Warning: {message}", file=sys.stderr)
