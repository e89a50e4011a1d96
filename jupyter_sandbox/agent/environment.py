"""What everything that the agent starts finds around it: directories, variables, limits, and a writable Python.

The interpreter that runs the agent is read-only. Commands and kernels get a virtual environment in the home
directory layered over it: packages of the read-only prefix are visible, ``pip install`` writes into the layer.
It is made by hand, because ``python -m venv`` costs seconds and this has to cost milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import site
import stat
import sys
from typing import Dict, List, Mapping, Optional

from ..errors import error

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIP = "import sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"


class Environment:
    """The surroundings of a process inside the sandbox.

    Parameters
    ----------
    workspace, home:
        Directories; relative paths of every route are below ``workspace``.
    extra:
        Variables that the sandbox's owner gave.
    rlimits:
        ``{"RLIMIT_DATA": bytes, "RLIMIT_NPROC": n}`` where no cgroup enforces them from outside.
    """

    def __init__(self, workspace: str, home: str, extra: Mapping[str, str], rlimits: Mapping[str, int]) -> None:
        self.workspace = workspace
        self.home = home
        self.extra = dict(extra)
        self.rlimits = dict(rlimits)
        self.venv = os.path.join(home, ".venv")
        self.python = _layer(self.venv)
        self._base = self._fixed()

    def build(self, own: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
        """All variables of a process: fixed ones, then the owner's, then its ``own``."""
        return {**self._base, **self.extra, **(own or {})}

    def cwd(self, path: Optional[str]) -> str:
        """The directory in which a process starts: ``path``, else the workspace, else home, else the root.

        Raises
        ------
        SandboxError
            ``FILE_NOT_FOUND`` or ``NOT_A_DIRECTORY`` if ``path`` was given and is no directory.
        """
        if path is None:
            return next((p for p in (self.workspace, self.home) if os.path.isdir(p)), "/")
        full = self.resolve(path)
        if not os.path.isdir(full):
            code = "NOT_A_DIRECTORY" if os.path.exists(full) else "FILE_NOT_FOUND"
            raise error(code, f"The working directory {full!r} is not a directory of the sandbox.", path=full)
        return full

    def resolve(self, path: object) -> str:
        """``path`` as an absolute path of the sandbox; raises ``INVALID_PATH``."""
        if not isinstance(path, str) or not path or "\0" in path or not _encodable(path):
            raise error("INVALID_PATH", f"{path!r} is not a usable path.", remedy="Give a text without NUL characters.")
        return os.path.normpath(os.path.join(self.workspace, path))

    def _fixed(self) -> Dict[str, str]:
        path = os.environ.get("PATH") or _DEFAULT_PATH
        first = [os.path.join(self.venv, "bin"), os.path.join(self.home, ".local", "bin")]
        fixed = {
            "PATH": ":".join([*first, os.path.dirname(sys.executable), path]),
            "HOME": self.home,
            "USER": "sandbox",
            "LOGNAME": "sandbox",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "VIRTUAL_ENV": self.venv,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        return {**os.environ, **fixed}


def _encodable(path: str) -> bool:
    try:
        return bool(os.fsencode(path))
    except UnicodeEncodeError:
        return False


def _layer(venv: str) -> str:
    """Make (or renew) the layered environment and return its interpreter.

    Renewed at every start, because the image may have another Python than the last time. Where the home cannot
    be written, the read-only interpreter is used as it is.
    """
    base = getattr(sys, "_base_executable", None) or sys.executable
    bin_dir, version = os.path.join(venv, "bin"), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = os.path.join(venv, "lib", version, "site-packages")
    try:
        for directory in (bin_dir, packages):
            os.makedirs(directory, exist_ok=True)
        _write(os.path.join(venv, "pyvenv.cfg"), f"home = {os.path.dirname(base)}\n{_CONFIG}")
        _write(os.path.join(packages, "_sandbox_base.pth"), "".join(map(_pth_line, _read_only_packages())))
        for name in ("python", "python3", version):
            _link(base, os.path.join(bin_dir, name))
        for name in ("pip", "pip3"):
            _write(os.path.join(bin_dir, name), f"#!{os.path.join(bin_dir, 'python')}\n{_PIP}", 0o755)
    except OSError:
        return sys.executable
    return os.path.join(bin_dir, "python")


_CONFIG = f"include-system-site-packages = false\nversion = {'.'.join(map(str, sys.version_info[:3]))}\n"


def _read_only_packages() -> List[str]:
    """The package directories of the agent's prefix, then those of the Python that it was made from."""
    found = site.getsitepackages([sys.prefix]) + site.getsitepackages([sys.base_prefix])
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]


def _pth_line(path: str) -> str:
    # addsitedir also reads the .pth files in there (editable installs), which a bare path line would not.
    return f"import site; site.addsitedir({path!r})\n"


def _write(path: str, text: str, mode: int = 0o644) -> None:
    if _text_of(path) == text:
        return
    # Renamed into its place: whatever stood there (a fifo, a link) is replaced, never opened for writing.
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    with open(new, "x", encoding="utf-8") as file:
        file.write(text)
    os.chmod(new, mode)
    os.replace(new, path)


def _text_of(path: str) -> Optional[str]:
    """What a regular file says; None for anything else."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return None  # missing or damaged


def _link(target: str, path: str) -> None:
    if os.path.islink(path) and os.readlink(path) == target:
        return
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)
