"""The directories of a lifetime on the host: who owns them, how they are opened, how they are deleted.

Their content was written by the sandbox. Nothing here follows a symbolic link below them, and nothing happens in
them while the sandbox runs.
"""

from __future__ import annotations

import itertools
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from ...errors import error
from .. import processes

WRITABLE = {"workspace": "/workspace", "home": "/home/sandbox", "tmp": "/tmp"}  # noqa: S108 - inside the sandbox
"""The directories of a lifetime, and where a sandbox sees them."""

_MODES = {"workspace": 0o755, "home": 0o700, "tmp": 0o1777}
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def prepare(directory: Path, uid_range: range) -> int | None:
    """Make the writable directories of a lifetime; for root, owned by a uid that nobody else has.

    Parameters
    ----------
    directory:
        The lifetime's own; its siblings are the other lifetimes.
    uid_range:
        Where root takes uids from.

    Returns
    -------
    int or None
        The uid to run as; None for an ordinary user, who runs sandboxes as himself.
    """
    uid = _uid(directory, uid_range) if os.geteuid() == 0 else None
    for name, mode in _MODES.items():
        path = directory / name
        if not path.is_symlink() and not path.exists():
            path.mkdir(mode=0o700)
            if uid is not None:
                os.chown(path, uid, uid)
            path.chmod(mode)
    return uid


def _uid(directory: Path, uid_range: range) -> int:
    if (uid := _owner(directory)) in uid_range:
        return uid
    taken = {_owner(sibling) for sibling in directory.parent.iterdir()}
    taken |= {one.uid for pid in processes.everyone() if (one := processes.status(pid)) is not None}
    # From a random place on: another manager with the same range then hardly ever takes the same one.
    start = secrets.randbelow(len(uid_range))
    for uid in itertools.chain(uid_range[start:], uid_range[:start]):
        if uid not in taken:
            return uid
    raise error(
        "LIMIT_REACHED",
        f"All {len(uid_range)} user ids for sandboxes are in use.",
        remedy="Destroy sandboxes, or widen `SandboxManager.uid_range`.",
    )


def _owner(directory: Path) -> int:
    try:
        return (directory / "workspace").lstat().st_uid
    except OSError:
        return -1


def make_mountpoint(directory: Path, inside: Path, *, is_file: bool, uid: int | None) -> None:
    """Make the place for a mount at ``inside`` where that lies in a writable directory; else do nothing.

    bwrap would follow a symbolic link that the sandbox left there, out of the sandbox; here whatever is not a
    directory on the way is removed.
    """
    found = next((name for name, place in WRITABLE.items() if inside.is_relative_to(place)), None)
    if found is None:
        return
    *parents, last = inside.relative_to(WRITABLE[found]).parts
    fd = os.open(directory / found, _PLACE)
    try:
        for name in parents if is_file else [*parents, last]:
            below = _directory_in(fd, name, uid)
            os.close(fd)
            fd = below
        if is_file:
            _file_in(fd, last, uid)
    finally:
        os.close(fd)


def _directory_in(parent: int, name: str, uid: int | None) -> int:
    mode = _mode(parent, name)
    if mode is not None and not stat.S_ISDIR(mode):
        os.unlink(name, dir_fd=parent)
        mode = None
    if mode is None:
        os.mkdir(name, 0o755, dir_fd=parent)
        if uid is not None:
            os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)
    return os.open(name, _PLACE, dir_fd=parent)


def _file_in(parent: int, name: str, uid: int | None) -> None:
    mode = _mode(parent, name)
    if mode is not None and not stat.S_ISREG(mode):
        delete_entries(parent, [name])
        mode = None
    if mode is None:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parent))
        if uid is not None:
            os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)


def _mode(parent: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def delete(directory: Path) -> None:
    """Delete a lifetime's directory with all that is in it. Idempotent."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        delete_entries(fd, os.listdir(fd))  # noqa: PTH208 - of a descriptor
    finally:
        os.close(fd)
    directory.rmdir()


def delete_entries(top: int, names: Iterable[str]) -> None:
    """Delete ``names`` in the directory open as ``top``, whatever they are.

    A tree that a sandbox made may be deeper than a stack or a path may be long. So a directory inside another one
    is first moved up to ``top``: neither depth nor open descriptors grow. Modes that would forbid it are changed.
    """
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        mode = _mode(top, name)
        if mode is not None and stat.S_ISDIR(mode):
            waiting.extend(_empty_into(top, name))
            os.rmdir(name, dir_fd=top)
        elif mode is not None:
            os.unlink(name, dir_fd=top)


def _empty_into(top: int, name: str) -> list[str]:
    """Delete the files in the directory ``name`` and move its directories up to ``top``; returns their new names."""
    os.chmod(name, 0o700, dir_fd=top)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    moved = []
    try:
        for inner in os.listdir(fd):  # noqa: PTH208 - of a descriptor
            if stat.S_ISDIR(_mode(fd, inner) or 0):
                os.chmod(inner, 0o700, dir_fd=fd)  # to move a directory one must be able to write it
                moved.append(f".delete-{secrets.token_hex(8)}")
                os.rename(inner, moved[-1], src_dir_fd=fd, dst_dir_fd=top)
            else:
                os.unlink(inner, dir_fd=fd)
    finally:
        os.close(fd)
    return moved
