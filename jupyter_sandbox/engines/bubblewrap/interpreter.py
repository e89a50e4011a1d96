"""Which directories of the host a Python needs in a sandbox: its prefixes, and the way its symbolic links go."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ...errors import SandboxError, error
from ..base import Interpreter

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
"""What every sandbox sees read-only, where it exists."""

_MAX_LINKS = 40


def paths(interpreter: Interpreter) -> list[Path]:
    """What to mount read-only, at the same path inside as outside, parents before their children.

    Raises
    ------
    Failed
        ``START_FAILED`` if the Python is gone, or its prefix is a home or another directory that is no Python's.
    """
    prefixes = [Path(interpreter.prefix), Path(interpreter.base_prefix)]
    for prefix in prefixes:
        _check(prefix)
    links = list(_links(Path(interpreter.executable)))
    wanted = [*prefixes, *(prefix.resolve() for prefix in prefixes), *links]
    return _outermost(wanted)


def _check(prefix: Path) -> None:
    if not prefix.is_absolute() or ".." in prefix.parts:
        raise _unusable(prefix, "is not an absolute path")
    if not prefix.is_dir():
        raise _unusable(prefix, "does not exist any more")
    home = Path.home()
    if prefix.resolve() in (Path("/"), home.resolve(), *home.resolve().parents):
        raise _unusable(prefix, "is a home directory or one above it, which a sandbox may not see")
    if not (prefix / "pyvenv.cfg").is_file() and not any(prefix.glob("lib*/py*3*/os.py")):
        raise _unusable(prefix, "holds no Python")


def _links(executable: Path) -> Iterable[Path]:
    """``executable`` and every file that it leads to by symbolic links, the real one last."""
    current = executable
    for _ in range(_MAX_LINKS):
        yield current
        try:
            target = current.readlink()
        except FileNotFoundError as exc:
            raise _unusable(executable, "does not exist any more") from exc
        except OSError:
            yield current.resolve()
            return
        current = Path(os.path.normpath(current.parent.resolve() / target))
    raise _unusable(executable, "is a symbolic link without an end")


def _outermost(wanted: Iterable[Path]) -> list[Path]:
    chosen: list[Path] = []
    for path in sorted(set(wanted), key=lambda one: len(one.parts)):
        if not any(path.is_relative_to(other) for other in [*map(Path, SYSTEM), *chosen]):
            chosen.append(path)
    return chosen


def _unusable(path: Path, why: str) -> SandboxError:
    return error(
        "START_FAILED",
        f"The sandbox was created with the Python at {path}, which {why}.",
        remedy="Destroy the sandbox, then create it from a virtual environment that exists.",
    )
