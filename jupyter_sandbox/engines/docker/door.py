"""The hand-off directory of a lifetime: what its container sees, read-only, at ``/run/sandbox``.

It holds the agent, fresh at every start, and while a start is under way the hand-off socket, over which the
agent gets its listening descriptor (design section 8, "Connecting"). The directory lies in one that nobody
else may enter (0700), so that only processes inside the container can reach a socket that is open to all.
The host's end of the agent's own socket lies beside the directory, outside of anything mounted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import struct
from pathlib import Path

from ...errors import error

_AGENT = "agent.pyz"
_HANDOFF = "handoff.sock"
_NOTE = "handoff-directory"
_NAME_LENGTH = 12
"""Digits of the lifetime in the directory's name: a socket's path has 107 bytes."""


def door_path(sockets: Path, lifetime: str) -> Path:
    """Where the hand-off directory of a new lifetime goes."""
    return sockets / lifetime[:_NAME_LENGTH]


def remember(directory: Path, path: Path) -> None:
    """Note in a lifetime's own ``directory`` where its hand-off directory is, should its container be removed."""
    (directory / _NOTE).write_text(str(path))


def remembered(directory: Path) -> Path | None:
    """What :func:`remember` noted; None if it did not."""
    try:
        return Path((directory / _NOTE).read_text())
    except OSError:
        return None


class Door:
    """The hand-off directory at ``path``; see the module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.agent_socket = path.with_name(f"{path.name}.sock")
        self._listening: socket.socket | None = None

    def open(self, agent: Path) -> None:
        """Make the directory, put ``agent`` (a zipapp) into it, and listen on the hand-off socket.

        Raises
        ------
        SandboxError
            ``START_FAILED`` when the directory's parent is not ours alone.
        """
        _private_parent(self.path.parent)
        self.path.mkdir(mode=0o711, exist_ok=True)
        self.path.chmod(0o711)
        fresh = self.path / f".{_AGENT}"
        shutil.copyfile(agent, fresh)
        fresh.chmod(0o444)
        fresh.replace(self.path / _AGENT)
        self._listen()

    def _listen(self) -> None:
        path = self.path / _HANDOFF
        path.unlink(missing_ok=True)
        self._listening = sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        sock.bind(os.fspath(path))
        path.chmod(0o666)
        sock.listen(1)

    async def accept(self) -> socket.socket:
        """The one connection of the agent; nobody can connect after it."""
        if self._listening is None:
            raise RuntimeError("the door is not open")
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        self.close()
        return connection

    def close(self) -> None:
        """Close and remove the hand-off socket; the directory stays for the container."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        (self.path / _HANDOFF).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory and the agent's socket, if they are there."""
        self.close()
        self.agent_socket.unlink(missing_ok=True)
        for name in (_AGENT, f".{_AGENT}"):
            (self.path / name).unlink(missing_ok=True)
        if self.path.is_dir():
            self.path.rmdir()


def _private_parent(path: Path) -> None:
    # A stopped container names the directory of its first start: after a reboot it has to be made again.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise error("START_FAILED", f"{path} belongs to somebody else.", remedy="Ask who owns it to remove it.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)


def came_from(connection: socket.socket, container_id: str) -> bool:
    """Whether the peer of ``connection`` is a process of that container, as far as can be seen from here.

    The kernel says which process connected, and its control group names the container. Without a view of
    that process (another PID namespace, ``hidepid``) the private parent directory alone has to do.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text() if pid > 0 else ""
    except OSError:
        groups = ""
    return not groups or container_id in groups
