"""Starting a kernel process: its command line, its connection file, its sockets.

Standard library only, because the first kernel is started before anything slow is imported.
"""

from __future__ import annotations

import json
import os
import socket
from typing import List, Mapping, NamedTuple

from ..errors import error
from .environment import Environment
from .spawning import Spawner

PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
"""A kernel's sockets; with the ``ipc`` transport a port is the end of a file name."""

PYTHON = "python3"
"""Name of the kernelspec of the sandbox's own Python, which always exists."""

QUIET_IPYKERNEL: Mapping[str, str] = {"JPY_PARENT_PID": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
"""Variables with which an ipykernel says nothing at its start.

The first says "your parent is process 1", without which it prints a notice (its supervisor ends it, in truth);
without the second debugpy warns on stderr that the standard library is frozen.
"""


class Connection(NamedTuple):
    """Where one kernel process listens and how its messages are signed."""

    directory: str
    key: bytes

    @property
    def file(self) -> str:
        """The connection file."""
        return os.path.join(self.directory, "kernel.json")

    def address(self, channel: str) -> str:
        """The ZMQ address of ``"shell"``, ``"iopub"``, ``"stdin"`` or ``"control"``."""
        return f"ipc://{self.directory}/k-{PORTS[channel]}"


class Launcher(NamedTuple):
    """How the kernels of one kernelspec are started."""

    name: str
    language: str
    argv: List[str]
    env: Mapping[str, str]
    resource_dir: str = ""
    interrupt_mode: str = "signal"
    rlimits: Mapping[str, int] = {}

    def launch(self, spawner: Spawner, cwd: str, env: Mapping[str, str]) -> Launch:
        """Start a kernel process with the complete environment ``env`` in the directory ``cwd``."""
        connection = _connect(env["HOME"])
        words = {"{connection_file}": connection.file, "{resource_dir}": self.resource_dir}
        order = {
            "argv": [[_fill(word, words) for word in self.argv]],
            "cwd": cwd,
            "env": {**env, **self.env},
            "rlimits": dict(self.rlimits),
        }
        return Launch(self, connection, _spawn(spawner, order, connection.directory), cwd, env)


class Launch(NamedTuple):
    """A kernel process that was started: all that is needed to take care of it and to start it again."""

    launcher: Launcher
    connection: Connection
    control: socket.socket
    cwd: str
    env: Mapping[str, str]


def python_launcher(environment: Environment) -> Launcher:
    """The launcher of the sandbox's own Python, with the packages that the user installed."""
    return Launcher(
        name=PYTHON,
        language="python",
        argv=[environment.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        env=QUIET_IPYKERNEL,
        rlimits=environment.rlimits,
    )


def _spawn(spawner: Spawner, order: Mapping[str, object], scratch: str) -> socket.socket:
    nothing = os.open(os.devnull, os.O_RDONLY)
    reading, writing = os.pipe()
    try:
        told = {"drain": True, "scratch": scratch}
        return spawner.spawn(order, (nothing, writing, writing), told, (reading,))
    finally:
        for fd in (nothing, reading, writing):
            os.close(fd)


def _connect(home: str) -> Connection:
    """A new private directory with a short path (a socket's path has 107 bytes), and the connection file in it."""
    base = next((path for path in ("/tmp", home) if os.access(path, os.W_OK)), None)  # noqa: S108 - 0700, random name
    if base is None:
        raise error("START_FAILED", "Neither /tmp nor the home directory of the sandbox can be written.")
    connection = Connection(os.path.join(base, f"jsk-{os.urandom(8).hex()}"), os.urandom(32).hex().encode())
    os.mkdir(connection.directory, 0o700)
    info = {
        "transport": "ipc",
        "ip": f"{connection.directory}/k",
        "key": connection.key.decode(),
        "signature_scheme": "hmac-sha256",
        **{f"{channel}_port": port for channel, port in PORTS.items()},
    }
    fd = os.open(connection.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(info, file)
    return connection


def _fill(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word
