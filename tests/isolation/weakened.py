"""The engines' own sandboxes with one protection less: the only place where tests change what an engine builds.

Each entry edits the words that the bubblewrap engine gives to bwrap, or the configuration that the Docker engine gives
to its daemon, and nothing else; the engine starts the result as it starts every sandbox.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_sandbox.engines.bubblewrap import arguments, files, launch
from jupyter_sandbox.engines.docker import container

Words = list[str]

HOST_VARIABLE = "JSB_OF_THE_HOST"
"""A variable of the manager's environment, which must not enter a sandbox."""

VIEW = "/host"
"""Where the host's files are seen without "file system view"."""


def _without(*gone: str) -> Callable[[Words], Words]:
    """Take away every place where ``gone`` stands in this order."""

    def edit(words: Words) -> Words:
        place = _find(words, gone)
        return words[:place] + words[place + len(gone) :]

    return edit


def _instead(old: tuple[str, ...], new: tuple[str, ...], skip: int = 0) -> Callable[[Words], Words]:
    """Put ``new`` for ``old`` and the ``skip`` words after it."""

    def edit(words: Words) -> Words:
        place = _find(words, old)
        return [*words[:place], *new, *words[place + len(old) + skip :]]

    return edit


def _find(words: Words, part: tuple[str, ...]) -> int:
    for place in range(len(words)):
        if tuple(words[place : place + len(part)]) == part:
            return place
    raise AssertionError(f"{part} is not in the command line of bwrap")


def _all(*edits: Callable[[Words], Words]) -> Callable[[Words], Words]:
    def edit(words: Words) -> Words:
        for one in edits:
            words = one(words)
        return words

    return edit


def _writable_agent(words: Words) -> Words:
    place = words.index(arguments.AGENT)
    assert words[place - 2] == "--ro-bind"
    return [*words[: place - 2], "--bind", *words[place - 1 :]]


def _shared_tmp(words: Words) -> Words:
    place = next(n for n, word in enumerate(words) if word == "/tmp" and words[n - 2] == "--bind")
    return [*words[: place - 1], "/tmp", *words[place:]]


def _view(words: Words) -> Words:
    place = _find(words, ("--dir", "/var"))
    return [*words[:place], "--bind", "/", VIEW, *words[place:]]


def _private_shared_memory(words: Words) -> Words:
    place = _find(words, ("--tmpfs", "/dev/shm"))
    return [*words[: place - 4], "--bind", "/dev/shm", "/dev/shm", *words[place + 2 :]]


BUBBLEWRAP: dict[str, Callable[[Words], Words]] = {
    "system call filter": _instead(("--seccomp",), (), skip=1),
    "capabilities": _instead(("--cap-drop", "ALL"), ("--cap-add", "ALL")),
    "no nested user namespaces": _without("--disable-userns"),
    # bwrap makes a second one where the uid inside is not 0, or where others are refused.
    "inner user namespace": _all(
        _without("--disable-userns"),
        _instead(("--uid", "1000", "--gid", "1000"), ("--uid", "0", "--gid", "0")),
    ),
    "pid namespace": _all(
        _without("--unshare-pid"),
        _without("--as-pid-1"),
        _instead(("--proc", "/proc"), ("--bind", "/proc", "/proc")),
    ),
    "network namespace": _without("--unshare-net"),
    "IPC namespace": _without("--unshare-ipc"),
    "host name namespace": _all(_without("--unshare-uts"), _without("--hostname", "sandbox")),
    "cgroup namespace": _without("--unshare-cgroup"),
    "file system view": _view,
    "read-only root": _without("--remount-ro", "/"),
    "read-only devices": _without("--remount-ro", "/dev"),
    "read-only mounts": _writable_agent,
    "private shared memory": _private_shared_memory,
    # To make it read-only also takes the devices away.
    "private devices": _all(
        _instead(("--dev", "/dev"), ("--dev-bind", "/dev", "/dev")), _without("--remount-ro", "/dev")
    ),
    "private /tmp": _shared_tmp,
    "cleared environment": _without("--clearenv"),
    "started without environment": lambda words: words,
    "unprivileged uid": lambda words: words,
}
"""By protection, how the words look without it; the last two are not words but the process that bwrap starts as."""

_PRIVILEGES = [
    *("SYS_ADMIN", "SYS_CHROOT", "SYS_BOOT", "SYS_TIME", "SYS_MODULE", "SYS_PTRACE", "SYSLOG", "MKNOD", "NET_RAW"),
    *("DAC_READ_SEARCH", "DAC_OVERRIDE"),
]


def _mount(config: dict[str, Any], source: str, target: str) -> None:
    config["HostConfig"]["Mounts"].append({"Type": "bind", "Source": source, "Target": target})


def _docker_capabilities(config: dict[str, Any]) -> None:
    config["HostConfig"].update(CapDrop=[], CapAdd=_PRIVILEGES)


def _docker_kernel_files(config: dict[str, Any]) -> None:
    config["HostConfig"].update(ReadonlyPaths=[], MaskedPaths=[])
    _mount(config, "/sys", "/sys")


def _docker_uts(config: dict[str, Any]) -> None:
    config["HostConfig"]["UTSMode"] = "host"
    del config["Hostname"]


def _docker_devices(config: dict[str, Any]) -> None:
    paths = [path for path in ("/dev/loop0", "/dev/kmsg", "/dev/mem", "/dev/fuse") if Path(path).exists()]
    config["HostConfig"]["Devices"] = [
        {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"} for path in paths
    ]


def _docker_writable_mounts(config: dict[str, Any]) -> None:
    for mount in config["HostConfig"]["Mounts"]:
        mount.pop("ReadOnly", None)


def _host(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["HostConfig"].update({key: "host"})


DOCKER: dict[str, Callable[[dict[str, Any]], None]] = {
    "system call filter": lambda config: config["HostConfig"]["SecurityOpt"].append("seccomp=unconfined"),
    "no new privileges": lambda config: config["HostConfig"]["SecurityOpt"].remove("no-new-privileges"),
    "capabilities": _docker_capabilities,
    "ordinary user": lambda config: config.update(User="0:0"),
    "kernel files covered": _docker_kernel_files,
    "pid namespace": _host("PidMode"),
    "network namespace": _host("NetworkMode"),
    "IPC namespace": _host("IpcMode"),
    "host name namespace": _docker_uts,
    "cgroup namespace": _host("CgroupnsMode"),
    "file system view": lambda config: _mount(config, "/", VIEW),
    "read-only mounts": _docker_writable_mounts,
    "private devices": _docker_devices,
    "private /tmp": lambda config: _mount(config, "/tmp", "/tmp"),
    "cleared environment": lambda config: config["Env"].append(f"{HOST_VARIABLE}={os.environ[HOST_VARIABLE]}"),
}
"""By protection, how the configuration of a container looks without it."""


@contextlib.contextmanager
def weakened(off: frozenset[str]) -> Iterator[None]:
    """While this lasts, both engines start sandboxes without the protections ``off``."""
    with pytest.MonkeyPatch.context() as patch:
        _weaken_bubblewrap(patch, off)
        _weaken_docker(patch, off)
        yield


def _weaken_bubblewrap(patch: pytest.MonkeyPatch, off: frozenset[str]) -> None:
    build, start, prepare = arguments.words, subprocess.Popen, files.prepare

    def words(**given: Any) -> bytes:
        listed = [word.decode() for word in build(**given).split(b"\0")[:-1]]
        for name in sorted(off):
            listed = BUBBLEWRAP[name](listed)
        return b"".join(word.encode() + b"\0" for word in listed)

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return start(command, **{**options, "env": dict(os.environ)})

    patch.setattr(arguments, "words", words)
    if "unprivileged uid" in off:
        patch.setattr(files, "prepare", lambda directory, uids: _prepare_as_ourselves(prepare, directory, uids))
    if "started without environment" in off:
        patch.setattr(launch, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL))


def _prepare_as_ourselves(prepare: Callable[[Path, range], int | None], directory: Path, uids: range) -> None:
    prepare(directory, uids)
    for name in files.WRITABLE:
        os.chown(directory / name, os.geteuid(), os.getegid())


def _weaken_docker(patch: pytest.MonkeyPatch, off: frozenset[str]) -> None:
    build = container.configuration

    def configuration(*given: Any, **named: Any) -> dict[str, Any]:
        config = build(*given, **named)
        for name in sorted(off):
            DOCKER[name](config)
        return config

    patch.setattr(container, "configuration", configuration)
