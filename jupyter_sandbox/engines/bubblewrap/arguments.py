"""The command line of bwrap: what a sandbox sees, as whom it runs, and what it may not do.

The words go to bwrap by ``--args``, so that no path of the host stands in a command line that the sandbox sees;
only the marker does (:func:`marker`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..base import Interpreter
from .interpreter import SYSTEM

AGENT = "/opt/jupyter-sandbox/agent.pyz"
"""Where the agent lies inside."""

MARKED_BY = "-X"
"""What stands before the marker in a command line."""

UID = GID = 1000
"""Ids inside; outside they are the sandbox's own uid."""

_ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"),
    *("ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf", "crypto-policies"),
    *("pki/ca-trust/extracted", "pki/tls/certs", "pki/tls/cert.pem"),
    *("fonts", "mime.types", "magic", "protocols", "services", "terminfo", "inputrc", "ImageMagick-6"),
    *("python3", "python3.11", "python3.12", "python3.13", "python3.14"),
)
"""What of the host's /etc is seen; the time zone is not, because it is UTC inside."""

MADE_UP = {
    "/etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
    f"sandbox:x:{UID}:{GID}:sandbox:/home/sandbox:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "/etc/group": f"root:x:0:\nsandbox:x:{GID}:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n",
    "/etc/hostname": "sandbox\n",
}
"""Files with a content of ours."""

_NAMESPACES = ("user", "ipc", "pid", "net", "uts", "cgroup")


def marker(installation: str, lifetime: str) -> str:
    """A word by which the processes of a lifetime are found again in the command lines of the host."""
    return f"jsb-{installation}-{lifetime}"


def command_line(bwrap: str, mark: str, args_fd: int, python: str, command: Sequence[str]) -> list[str]:
    """What is executed, outside and then inside; both carry the marker, as an option that Python ignores."""
    return [bwrap, "--args", str(args_fd), "--", python, MARKED_BY, mark, *command]


def words(
    *,
    writable: Mapping[str, Path],
    readonly: Mapping[str, Path],
    data: Mapping[str, int],
    python: Interpreter,
    shm: int,
    fds: Mapping[str, int],
) -> bytes:
    """The words for ``--args``.

    Parameters
    ----------
    writable, readonly:
        What is seen besides the system: from the path inside to that on the host. The read-only ones lie over the
        writable ones.
    data:
        Descriptors with the contents of :data:`MADE_UP`, by path.
    python:
        The interpreter, whose programs are on ``PATH``.
    shm:
        Bytes of ``/dev/shm``.
    fds:
        Options of bwrap that take a descriptor: ``seccomp``, ``info-fd``.
    """
    listed: list[str] = [
        *(f"--unshare-{name}" for name in _NAMESPACES),
        *("--disable-userns", "--as-pid-1", "--new-session", "--cap-drop", "ALL"),
        *("--uid", str(UID), "--gid", str(GID), "--hostname", "sandbox"),
        *_environment(python),
        *_system(),
        *_etc(data),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(shm), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108
        *(word for inside, path in writable.items() for word in ("--bind", str(path), inside)),
        *(word for inside, path in readonly.items() for word in ("--ro-bind", str(path), inside)),
        *("--dir", "/var", "--symlink", "/tmp", "/var/tmp", "--dir", "/run", "--remount-ro", "/"),  # noqa: S108
        *("--chdir", "/workspace"),
        *(word for option, fd in fds.items() for word in (f"--{option}", str(fd))),
    ]
    return b"".join(os.fsencode(word) + b"\0" for word in listed)


def _environment(python: Interpreter) -> Iterable[str]:
    own = [str(Path(python.executable).parent), f"{python.prefix}/bin", f"{python.base_prefix}/bin"]
    system = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
    values = {
        "PATH": ":".join(dict.fromkeys([*own, *system])),
        "HOME": "/home/sandbox",
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
    }
    yield "--clearenv"
    for name, value in values.items():
        yield from ("--setenv", name, value)


def _system() -> Iterable[str]:
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)


def _etc(data: Mapping[str, int]) -> Iterable[str]:
    for name in _ETC:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    for inside, fd in data.items():
        yield from ("--perms", "0444", "--file", str(fd), inside)
