"""What a probe is: one forbidden act, what holds against it, and how it is tried inside of a sandbox."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from jupyter_sandbox.engines import seccomp

OUTSIDE = "outside"
"""Stands for the control in which the same program runs on the host as root, with no sandbox around it: for what the
kernel grants to nobody in a user namespace, whatever the flags of bwrap are."""


@dataclass(frozen=True)
class Held:
    """By which layers an act is refused.

    Each of them alone is enough: with all others off the act still fails; with all of them off it succeeds.
    ``no_control`` says why the last cannot be shown; there are then no layers to take away.
    """

    by: tuple[str, ...] = ()
    no_control: str = ""


@dataclass(frozen=True)
class Open:
    """The engine does not refuse the act, for this reason."""

    reason: str


@dataclass(frozen=True)
class Probe:
    """One forbidden act.

    Parameters
    ----------
    name:
        What nobody inside may do, as one reads it in the documentation.
    act:
        The body of a Python function. It raises OSError, or returns nothing, if the act is refused; it returns
        what was gained if not. It may use the names of :data:`PRELUDE`.
    held:
        By the setting: ``bubblewrap``, ``docker``, and ``user`` where bubblewrap under an ordinary user's manager
        differs from that under root's.
    needs:
        A path without which this machine's kernel cannot do the act at all.
    """

    name: str
    act: str
    held: Mapping[str, Held | Open]
    needs: str = "/"

    def __str__(self) -> str:
        return self.name

    def at(self, setting: str) -> Held | Open:
        """What holds in a setting."""
        return self.held.get(setting) or self.held["bubblewrap"]


def by(*layers: str) -> Held:
    """The layers that hold."""
    return Held(layers)


PRELUDE = """
import base64, ctypes, errno, glob, json, os, socket, stat, struct, subprocess, sys
CALL, IT = json.loads(base64.b64decode(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)

def check(result, reached=()):
    # An error that only comes after the permission was granted is as good as success.
    if result == -1 and errno.errorcode[ctypes.get_errno()] not in reached:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True

def call(name, *args, reached=()):
    words = [a if isinstance(a, (bytes, type(None))) or hasattr(a, '_obj') else ctypes.c_long(a) for a in args]
    return check(libc.syscall(ctypes.c_long(CALL[name]), *words), reached)

def first(paths, use):
    # What `use` gives for the first path for which it does not fail; also where a control shows the host's files.
    problem = FileNotFoundError(errno.ENOENT, 'nothing there')
    for path in [*paths, *('/host' + path for path in paths)]:
        try:
            if found := use(path):
                return found
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                problem = exc
    raise problem

def readable(*paths):
    return first(paths, lambda path: open(path, 'rb').read(20) or 'empty')

def writable(path):
    # Opened, not written: a control must not harm the machine.
    os.close(os.open(path, os.O_WRONLY))
    return path

def reaches(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(address)
        return True
"""

_TRY = """
try:
    gained = act()
    outcome = {"allowed": bool(gained), "why": repr(gained)}
except OSError as exc:
    outcome = {"allowed": False, "why": errno.errorcode.get(exc.errno, repr(exc))}
print(json.dumps(outcome))
"""

_EXTRA = {
    "x86_64": {"ptrace": 101, "clone": 56, "mknodat": 259},
    "aarch64": {"ptrace": 117, "clone": 220, "mknodat": 33},
}


def program(probe: Probe) -> str:
    """The Python program that tries the act and prints what came of it."""
    body = "\n".join(f"    {line}" for line in probe.act.strip("\n").splitlines())
    return f"{PRELUDE}\ndef act():\n{body}\n{_TRY}"


def argument(facts: Mapping[str, object]) -> str:
    """The program's argument: the numbers of system calls, and what there is outside to be reached."""
    machine = platform.machine()
    numbers = {name: getattr(call, machine) for name, call in {**seccomp.PRIVILEGED, **seccomp.ABSENT}.items()}
    # Encoded, so that what is searched for in command lines is not found in its own.
    return base64.b64encode(json.dumps([{**numbers, **_EXTRA[machine]}, dict(facts)]).encode()).decode()
