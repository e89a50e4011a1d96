"""How the agent starts: arguments, spawner, hand-off, the first kernel, and only then tornado and zmq.

The order is for speed. Everything up to the first kernel needs light modules of the standard library alone, so
that a preloaded kernel and the agent's own imports run side by side.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Dict, List, Optional

from ..errors import SandboxError, error
from .environment import Environment
from .handoff import Handoff
from .launch import Launch, python_launcher
from .spawning import Spawner

_OPTIONS = ("--handoff-fd", "--handoff", "--workspace", "--home")


def main(argv: Optional[List[str]] = None) -> int:
    """Run the agent until it is told to end; the exit code."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    # As process 1 an unhandled SIGTERM would be ignored; the running agent replaces this by an orderly end.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.umask(0o022)
    spawner = Spawner()
    handoff = _receive(options)
    try:
        environment = Environment(
            workspace=options.get("--workspace", "/workspace"),
            home=options.get("--home", "/home/sandbox"),
            extra=handoff.env,
            rlimits=handoff.rlimits,
        )
        first = _preload(environment, spawner) if handoff.preload else None
        from . import app

        return app.run(handoff, environment, spawner, first)
    except Exception as problem:  # the engine must hear why, whatever it was, before this process ends
        handoff.answer(problem.to_json() if isinstance(problem, SandboxError) else _failed(problem))
        raise


def _preload(environment: Environment, spawner: Spawner) -> Launch:
    """Start the kernel that will be asked for at once, before the slow imports."""
    return python_launcher(environment).launch(spawner, environment.cwd(None), environment.build())


def _receive(options: Dict[str, str]) -> Handoff:
    if "--handoff-fd" in options:
        return Handoff.from_fd(int(options["--handoff-fd"]))
    return Handoff.from_path(options["--handoff"])


def _parse(argv: List[str]) -> Dict[str, str]:
    """``--name value`` pairs as a dict (argparse alone costs more time than all that is done here)."""
    options = dict(zip(argv[::2], argv[1::2]))
    if len(argv) % 2 or set(options) - set(_OPTIONS) or not {"--handoff-fd", "--handoff"} & set(options):
        raise SystemExit(f"usage: agent --handoff-fd N | --handoff PATH [{' DIR] ['.join(_OPTIONS[2:])} DIR]")
    return options


def _failed(problem: Exception) -> Dict[str, Any]:
    missing = isinstance(problem, ImportError)
    text = f"The agent cannot start: {type(problem).__name__}: {problem}"
    return error("IMAGE_NOT_USABLE" if missing else "START_FAILED", text).to_json()


if __name__ == "__main__":
    raise SystemExit(main())
