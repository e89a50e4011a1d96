"""A stand-in for the way to a Docker daemon, which fails as a daemon fails that is stopped, or frozen."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

REAL = "/var/run/docker.sock"


class DaemonDoor:
    """A socket behind which the real daemon answers, unless it is made to be ``stopped`` or ``frozen``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections: list[socket.socket] = []
        self._flowing = threading.Event()
        self._listening: socket.socket | None = None
        self.open()

    def open(self) -> None:
        """The daemon answers (again)."""
        self._flowing.set()
        if self._listening is None:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(self.path))
            self._listening.listen(64)
            threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def freeze(self) -> None:
        """Connections are taken, and nothing is answered, as after SIGSTOP."""
        self._flowing.clear()

    def stop(self) -> None:
        """Nobody listens; what was connected breaks."""
        self._flowing.set()
        if self._listening is not None:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
            self.path.unlink()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections.clear()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(REAL)
                self._connections += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
