"""Starting bwrap: descriptors, limits and uid from outside, and nothing of ours inherited that is not meant.

A shell of a dozen words stands between us and bwrap. It waits until this process has put it into its control group
and on its CPUs, so that nothing of the sandbox ever ran outside of them; it sets the rlimits that Python cannot set
for another process; and it already has the sandbox's uid, so that bwrap is never executed as root.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import seccomp
from ..base import Interpreter
from ..processes import ProcessId, readable
from . import arguments, binary, files, interpreter
from .staging import staged

_GATE = 'ulimit -c 0 && ulimit -n "$1" && ulimit -f "$2" && shift 2 && read -r _ && exec "$@" </dev/null'
_OPEN_FILES = 65536
_BLOCK = 512
_MESSAGE_LIMIT = 64 * 1024
_BWRAP = "bwrap"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that one start of bwrap needs to know.

    ``uid`` is the one to drop to (None: stay who we are), ``command`` what runs inside after the Python (with
    ``{handoff}`` where the descriptor's number belongs), ``pin_cpus`` whether CPUs are limited by affinity.
    """

    marker: str
    directory: Path
    python: Interpreter
    agent: Path
    command: Sequence[str]
    uid: int | None
    memory: int
    file_size: int
    pin_cpus: bool


@dataclass(frozen=True)
class Launched:
    """A started bwrap that waits at the gate; :meth:`close` lets go of descriptors, not of the process."""

    process: subprocess.Popen[bytes]
    handoff: socket.socket
    gate: int
    info: int
    stderr: int
    _descriptors: contextlib.ExitStack

    def open_gate(self) -> None:
        """Let bwrap start."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.gate, b"\n")

    async def init(self) -> ProcessId | None:
        """The first process of the sandbox's pid namespace; None if bwrap ended before there was one."""
        text = b""
        while True:
            await readable(self.info)
            chunk = os.read(self.info, 4096)
            text += chunk
            with contextlib.suppress(ValueError):
                return ProcessId.of(int(json.loads(text)["child-pid"]))
            if not chunk:
                return None

    def message(self) -> str:
        """What bwrap, and Python before the agent ran, wrote to stderr."""
        text = os.pread(self.stderr, _MESSAGE_LIMIT, 0).rstrip(b"\0").decode(errors="replace")
        return text.strip()[-2000:]

    def close(self) -> None:
        """Close our ends."""
        self._descriptors.close()


def launch(plan: Plan) -> Launched:
    """Start bwrap up to the gate; if this raises, nothing is left."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as passed:
        near, far = (stack.enter_context(end) for stack, end in zip((ours, passed), socket.socketpair(), strict=True))
        stdin, gate = (_own(stack, end) for stack, end in zip((passed, ours), os.pipe(), strict=True))
        info, info_write = (_own(stack, end) for stack, end in zip((ours, passed), os.pipe(), strict=True))
        stderr = _own(ours, _bounded_memory())
        inherited = _Inherited(handoff=far.fileno(), info=info_write, stdin=stdin, stderr=stderr)
        process = _spawn_where_reachable(plan, inherited)
        return Launched(process, near, gate, info, stderr, ours.pop_all())


@dataclass(frozen=True, kw_only=True)
class _Inherited:
    """The other ends of :class:`Launched`."""

    handoff: int
    info: int
    stdin: int
    stderr: int


def _spawn_where_reachable(plan: Plan, inherited: _Inherited) -> subprocess.Popen[bytes]:
    bwrap = binary.find()
    writable = {inside: plan.directory / name for name, inside in files.WRITABLE.items()}
    readonly = {str(path): path for path in interpreter.paths(plan.python)} | {arguments.AGENT: plan.agent}
    for inside, source in readonly.items():
        files.make_mountpoint(plan.directory, Path(inside), is_file=source.is_file(), uid=plan.uid)
    if plan.uid is None:
        return _spawn(plan, inherited, str(bwrap.path), writable, readonly)

    def spawn(places: Mapping[str, Path]) -> subprocess.Popen[bytes]:
        path = bwrap.path if bwrap.root is None else places[_BWRAP] / bwrap.path.relative_to(bwrap.root)
        return _spawn(plan, inherited, str(path), _pick(places, writable), _pick(places, readonly))

    own = {} if bwrap.root is None else {_BWRAP: bwrap.root}
    return staged({**writable, **readonly, **own}, spawn)


def _pick(places: Mapping[str, Path], names: Mapping[str, Path]) -> dict[str, Path]:
    return {name: places[name] for name in names}


def _spawn(
    plan: Plan, inherited: _Inherited, bwrap: str, writable: Mapping[str, Path], readonly: Mapping[str, Path]
) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as stack:
        data = {path: _own(stack, _memory(text.encode())) for path, text in arguments.MADE_UP.items()}
        descriptors = {
            "seccomp": _own(stack, _memory(seccomp.build(pin_cpus=plan.pin_cpus))),
            "info-fd": inherited.info,
        }
        words = arguments.words(
            writable=writable, readonly=readonly, data=data, python=plan.python, shm=plan.memory // 2, fds=descriptors
        )
        args_fd = _own(stack, _memory(words))
        inside = [word.format(handoff=inherited.handoff) for word in plan.command]
        command = arguments.command_line(bwrap, plan.marker, args_fd, plan.python.executable, inside)
        dropped = {} if plan.uid is None else {"user": plan.uid, "group": plan.uid, "extra_groups": []}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            ["/bin/sh", "-c", _GATE, "sh", *_rlimits(plan), *command],
            stdin=inherited.stdin,
            stdout=subprocess.DEVNULL,
            stderr=inherited.stderr,
            env={},
            cwd="/",
            umask=0o022,
            close_fds=True,
            pass_fds=[inherited.handoff, args_fd, *data.values(), *descriptors.values()],
            start_new_session=True,
            **dropped,  # type: ignore[call-overload]
        )
        return process


def _rlimits(plan: Plan) -> list[str]:
    files_open = _below_hard(resource.RLIMIT_NOFILE, _OPEN_FILES)
    return [str(files_open), str(_below_hard(resource.RLIMIT_FSIZE, plan.file_size) // _BLOCK)]


def _below_hard(limit: int, wanted: int) -> int:
    hard = resource.getrlimit(limit)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)


def _own(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _memory(content: bytes) -> int:
    """A descriptor from which ``content`` can be read."""
    fd = os.memfd_create("sandbox")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _bounded_memory() -> int:
    """A place for messages that cannot grow, and needs nobody who reads it."""
    fd = os.memfd_create("stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, _MESSAGE_LIMIT)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd
