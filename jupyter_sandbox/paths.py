"""Where a manager keeps its records and its sockets, so that every client of the same user finds them.

Data: ``<Jupyter data dir>/sandbox/<machine-id>/``. The machine id is part of it because home directories are
often shared between machines, while processes, containers and locks are not.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from pathlib import Path

from jupyter_core.paths import jupyter_data_dir

from .errors import error

SOCKET_PATH_MAX = 107
"""Bytes that fit ``sun_path`` with its final NUL (unix(7))."""


def machine_id() -> str:
    """An id of this machine: ``/etc/machine-id``, else one made from the host's name."""
    try:
        text = Path("/etc/machine-id").read_text().strip()
    except OSError:
        text = ""
    return text if text.isalnum() else hashlib.sha256(socket.gethostname().encode()).hexdigest()[:32]


def data_dir() -> Path:
    """The directory of the records; not created here."""
    return Path(jupyter_data_dir()) / "sandbox" / machine_id()


def runtime_dir() -> Path:
    """A private directory (0700) with a short path for sockets, created if missing.

    Under ``$XDG_RUNTIME_DIR``, else ``/run/user/<uid>``, else (root) ``/run``, else the temporary directory. The
    last part of the name tells apart managers with different data directories.

    Raises
    ------
    Failed
        ``START_FAILED`` if somebody else owns the directory, or the path is too long for a socket.
    """
    uid = os.getuid()
    digest = hashlib.sha256(os.fsencode(data_dir())).hexdigest()[:8]
    path = _runtime_base(uid) / f"jsb-{uid}-{digest}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
        raise error(
            "START_FAILED", f"{path} belongs to somebody else.", remedy="Set XDG_RUNTIME_DIR to a directory of yours."
        )
    path.chmod(0o700)
    if len(os.fsencode(path)) > SOCKET_PATH_MAX - 30:
        raise error(
            "START_FAILED", f"{path} is too long for a socket.", remedy="Set XDG_RUNTIME_DIR to a shorter path."
        )
    return path


def _runtime_base(uid: int) -> Path:
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(given)
    for path in (Path(f"/run/user/{uid}"), Path("/run")):
        if os.access(path, os.W_OK):
            return path
    return Path("/tmp")  # noqa: S108 - ownership and mode are checked by the caller


def manager_socket() -> Path:
    """The socket on which the manager answers."""
    return runtime_dir() / "manager.sock"
