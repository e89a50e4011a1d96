"""``python -m jupyter_sandbox.manager``: started by whoever first needs a manager, or by hand in a terminal."""

from __future__ import annotations

import argparse
import json
import logging
import logging.handlers
import os
import sys

from .app import main
from .place import Place

_LOG_BYTES = 1024 * 1024


class ReadyLine:
    """Tells who started this process, once, whether it is the manager now; then lets go of its descriptors."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __call__(self, body: dict[str, object]) -> None:
        """Write ``body`` as one line, the first time."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            os.write(descriptor, json.dumps(body).encode() + b"\n")
        except OSError as exc:
            logging.getLogger(__name__).info("nobody reads the ready line: %s", exc)
        finally:
            os.close(descriptor)


def _log_to_file(place: Place) -> None:
    """A log that is bounded and private: states and faults, never code, environment or tokens."""
    place.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(place.data / "manager.log", maxBytes=_LOG_BYTES, backupCount=1)
    _log_to(handler)


def _log_to(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _let_go_of_stdio() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _start() -> int:
    parser = argparse.ArgumentParser(prog="python -m jupyter_sandbox.manager", description=__doc__)
    parser.add_argument("--ready-fd", type=int, help="descriptor for one line of JSON when it answers")
    descriptor = parser.parse_args().ready_fd
    os.umask(0o077)
    os.chdir("/")
    place = Place()
    if descriptor is None:
        _log_to(logging.StreamHandler())
        return main(place, lambda body: print(json.dumps(body), flush=True))  # noqa: T201 - for a person
    os.set_inheritable(descriptor, False)
    _let_go_of_stdio()
    _log_to_file(place)
    return main(place, ReadyLine(descriptor))


if __name__ == "__main__":
    sys.exit(_start())
