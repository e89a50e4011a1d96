"""The one manager of a user and host: its lock, its socket, and the file that tells clients where it is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from .. import __version__, paths

_BACKLOG = 1024
_CALL_BACK = 10.0
"""Seconds that a manager has to listen anew."""


class Place:
    """Held by the process that is the manager; :meth:`take` it first, :meth:`leave` it last."""

    def __init__(self) -> None:
        self.data = paths.data_dir()
        self._lock: int | None = None
        self._socket: Path | None = None

    def take(self) -> bool:
        """Make the data directory (0700) and take the lock; False if another manager holds it.

        The kernel lets go of the lock when the process ends, however it ends.
        """
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data.chmod(0o700)
        lock = os.open(self.data / "manager.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def listen(self, api: str) -> socket.socket:
        """Bind the manager's socket (0600) and write ``manager.json``, which holds for every XDG_RUNTIME_DIR."""
        self._socket = paths.manager_socket()
        self._socket.unlink(missing_ok=True)  # Only the holder of the lock comes here: nobody listens on it.
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listening.bind(os.fspath(self._socket))
        self._socket.chmod(0o600)
        listening.listen(_BACKLOG)
        self._write({"pid": os.getpid(), "socket": str(self._socket), "package": __version__, "api": api})
        return listening

    def told(self) -> str | None:
        """The socket of the manager that holds the place, as it wrote it."""
        try:
            return str(json.loads(self._file.read_text())["socket"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def is_shown(self) -> bool:
        """Whether the socket on which this process listens is where clients look for it."""
        return self._socket is not None and self._socket.exists()

    def call_back(self) -> str | None:
        """The socket of the manager that holds the place; it is told to listen anew if its socket was removed.

        That happens: a cleaner of temporary files, or the end of a login, removes directories under its feet.
        """
        deadline = time.monotonic() + _CALL_BACK
        while (path := self.told()) is not None and not Path(path).exists() and time.monotonic() < deadline:
            if (pid := self._holder()) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGHUP)
            # Nothing announces a socket in a directory that may not be there, either.
            time.sleep(0.05)
        return path

    def _holder(self) -> int | None:
        """The process in ``manager.json``, if it has the lock open: its number may be another one's by now."""
        try:
            pid = int(json.loads(self._file.read_text())["pid"])
            lock = (self.data / "manager.lock").stat()
            held = (entry.stat() for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.exists())
            return pid if any((one.st_dev, one.st_ino) == (lock.st_dev, lock.st_ino) for one in held) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def hide(self) -> None:
        """Remove socket and ``manager.json``: from now on clients start another manager, which waits for the lock."""
        self._file.unlink(missing_ok=True)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def leave(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _file(self) -> Path:
        return self.data / "manager.json"

    def _write(self, body: dict[str, Any]) -> None:
        fresh = self.data / "manager.json.new"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(body, file)
        fresh.replace(self._file)
