"""`jupyter sandbox build`: builds the image, and shows how far it is."""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
import time
from typing import Any, TextIO

from .. import __version__
from ..client import show
from ..engines.images import BuildEvent, build
from ..errors import SandboxError
from . import trust

DEFAULT_TAG = f"jupyter-sandbox:{__version__}"

_CLEAR = "\r\033[2K"
_TICK_SECONDS = 0.5


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "build",
        help="build the image that sandboxes on Docker run",
        description="Build the image that sandboxes on Docker run. Needs the docker command with BuildKit.",
    )
    parser.add_argument(
        "--base", metavar="IMAGE", help="a Debian or Ubuntu image to build on (default: a Python image)"
    )
    parser.add_argument("--tag", metavar="TAG", default=DEFAULT_TAG, help="name of the image (default: %(default)s)")
    parser.add_argument("--no-cache", action="store_true", help="build every step anew")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build, with a live line on a terminal and plain lines elsewhere."""
    print(f"Building {arguments.tag} ...", flush=True)
    display = LiveDisplay(sys.stdout) if sys.stdout.isatty() else Display(sys.stdout)
    try:
        with display:
            image = build(tag=arguments.tag, base=arguments.base, no_cache=arguments.no_cache, report=display.show)
    except SandboxError as exc:
        for line in exc.details.get("lines", ()):
            print(f"  {line}", file=sys.stderr)
        raise
    print(f"Built {image.name}, {show.size(image.size)}, in {image.seconds:.0f} s.")
    trust.renew_if_used(image.name)
    print(_next(image.name))
    return 0


def _next(name: str) -> str:
    if name == DEFAULT_TAG:
        return "New sandboxes use it where they run on Docker: `jupyter sandbox exec my-first 'python3 --version'`."
    return (
        f"To allow it: `c.SandboxManager.images = [{name!r}]` in jupyter_sandbox_config.py; then "
        f"`get_sandbox(..., image={name!r})` or `%%sandbox ID --image {name}`."
    )


class Display:
    """Plain lines: each step when it is done, with its time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, event: BuildEvent) -> None:
        """Take one event of the build."""
        if event.kind == "done":
            self._print_done(event)

    def _print_done(self, event: BuildEvent) -> None:
        took = "cached" if event.seconds is None else f"{event.seconds:.1f} s"
        print(f"  {_place(event)}{event.title}: {took}", file=self._stream, flush=True)


class LiveDisplay(Display):
    """On a terminal also a line that tells what runs now, for how long, and what it writes."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._now: BuildEvent | None = None
        self._since = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="jupyter-sandbox-build", daemon=True)

    def __enter__(self) -> LiveDisplay:
        self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticking.join()
        self._stream.write(_CLEAR)
        self._stream.flush()

    def show(self, event: BuildEvent) -> None:
        """Take one event of the build."""
        with self._lock:
            if event.kind == "done":
                self._now = None
                self._stream.write(_CLEAR)
                self._print_done(event)
                return
            if event.kind == "begin":
                self._since = time.monotonic()
            self._now = event
            self._draw()

    def _tick(self) -> None:
        while not self._over.wait(_TICK_SECONDS):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if self._now is None:
            return
        elapsed = time.monotonic() - self._since
        line = f"  {_place(self._now)}{self._now.title} {elapsed:.0f} s  {_printable(self._now.text)}"
        self._stream.write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()


def _place(event: BuildEvent) -> str:
    return f"{event.number}/{event.total} " if event.total else ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
