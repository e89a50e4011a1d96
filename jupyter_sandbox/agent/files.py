"""Files of the sandbox: what is done with them. How that looks over HTTP is in ``file_routes.py``.

Paths are absolute texts (``Environment.resolve``). Problems are errors of the family, made from ``OSError``
by :func:`failing`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, List, Optional

from ..errors import SandboxError, error

MAX_ENTRIES = 200_000
"""Entries in one listing; more would only be memory that the sandbox's user code could have used."""

_CODES = {
    errno.ENOENT: "FILE_NOT_FOUND",
    errno.EEXIST: "FILE_EXISTS",
    errno.EISDIR: "IS_A_DIRECTORY",
    errno.ENOTDIR: "NOT_A_DIRECTORY",
    errno.ENOTEMPTY: "DIRECTORY_NOT_EMPTY",
    errno.EACCES: "FILE_PERMISSION",
    errno.EPERM: "FILE_PERMISSION",
    errno.EROFS: "FILE_PERMISSION",
    errno.EBUSY: "FILE_PERMISSION",
    errno.ENOSPC: "TOO_LARGE",
    errno.EDQUOT: "TOO_LARGE",
    errno.EFBIG: "TOO_LARGE",
    errno.ENAMETOOLONG: "INVALID_PATH",
    errno.ELOOP: "INVALID_PATH",
    errno.EINVAL: "INVALID_PATH",
    errno.ENXIO: "INVALID_PATH",
}


@contextlib.contextmanager
def failing(path: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block into the error of the family that says the same of ``path``."""
    try:
        yield
    except OSError as problem:
        raise problem_with(path, problem) from problem


def problem_with(path: str, problem: OSError) -> SandboxError:
    """The error of the family for what happened to ``path``."""
    code = _CODES.get(problem.errno or 0, "INTERNAL")
    text = f"{readable(path)!r}: {problem.strerror or problem}."
    if code == "TOO_LARGE":
        return error(code, text, remedy="Delete files in the sandbox, or give it more disk.", path=readable(path))
    return error(code, text, path=readable(path))


def readable(name: str) -> str:
    """A file's name as text that JSON can carry; bytes that are no UTF-8 become replacement characters."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def info(path: str, found: Optional[os.stat_result] = None) -> Dict[str, Any]:
    """``FileInfo`` of the entry at ``path``; of a symbolic link itself, not of its target."""
    found = found or os.lstat(path)
    shown = readable(path)
    return {
        "name": os.path.basename(shown) or shown,
        "path": shown,
        "type": _kind(found.st_mode),
        "size": found.st_size,
        "modified_at": datetime.fromtimestamp(found.st_mtime, timezone.utc).isoformat(),
        "mode": stat.S_IMODE(found.st_mode),
    }


def listing(path: str, *, recursive: bool, hidden: bool) -> List[Dict[str, Any]]:
    """``FileInfo`` of what is in a directory, sorted by path; ``hidden`` also those that begin with a dot.

    What disappears meanwhile, or may not be read below ``path``, is left out.
    """
    with failing(path):
        waiting, found = [sorted(os.scandir(path), key=lambda entry: entry.name)], []
    while waiting:
        for entry in waiting.pop():
            if entry.name.startswith(".") and not hidden:
                continue
            with contextlib.suppress(OSError):
                found.append(info(entry.path, entry.stat(follow_symlinks=False)))
                if recursive and entry.is_dir(follow_symlinks=False):
                    waiting.append(list(os.scandir(entry.path)))
        if len(found) > MAX_ENTRIES:
            raise error("TOO_LARGE", f"{readable(path)!r} has more than {MAX_ENTRIES} entries.", remedy="List a part.")
    return sorted(found, key=lambda entry: str(entry["path"]))


def delete(path: str, *, recursive: bool) -> None:
    """Remove a file or link, or with ``recursive`` a directory and all in it."""
    with failing(path):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
        elif recursive:
            shutil.rmtree(path)
        else:
            remedy = "Give `recursive=True` to delete it and all in it."
            raise error("IS_A_DIRECTORY", f"{readable(path)!r} is a directory.", remedy=remedy, path=readable(path))


def move(source: str, destination: str) -> None:
    """Rename, also from one store to another; an existing file at the destination is replaced."""
    with failing(source):
        os.lstat(source)
    with failing(destination):
        try:
            os.replace(source, destination)
        except OSError as problem:
            if problem.errno != errno.EXDEV:
                raise
            _move_across(source, destination)


def mkdir(path: str, *, parents: bool) -> None:
    """Make a directory; with ``parents`` also those above, and it may exist."""
    with failing(path):
        if parents:
            os.makedirs(path, exist_ok=True)
        else:
            os.mkdir(path)


class Upload:
    """A file that is being written beside its destination, and takes its place as a whole or not at all.

    Parameters
    ----------
    path:
        The destination. If it is a symbolic link, its target is replaced. Missing parents are made.
    mode:
        Permissions of the new file; None keeps those of the old one, or gives the usual ones.
    """

    def __init__(self, path: str, mode: Optional[int] = None) -> None:
        self._path = path
        with failing(path):
            self._target = os.path.realpath(path)
            mode = _mode_for(self._target, path, mode)
            directory = os.path.dirname(self._target)
            os.makedirs(directory, exist_ok=True)
            self._temporary = os.path.join(directory, f".sandbox-upload-{os.urandom(8).hex()}")
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
            if mode is not None:
                os.fchmod(self._fd, mode)

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        with failing(self._path):
            while view:
                view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """All is written: put it in place."""
        with failing(self._path):
            os.close(self._fd)
            self._fd = -1
            os.replace(self._temporary, self._target)

    def abandon(self) -> None:
        """Leave everything as it was; does nothing after :meth:`finish` succeeded."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)


def open_to_read(path: str) -> int:
    """A descriptor of a regular file. Nothing else is opened: reading a pipe or a device may never end."""
    with failing(path):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return fd
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
    raise _not_a_file(path)


def _mode_for(target: str, path: str, mode: Optional[int]) -> Optional[int]:
    """The permissions for a new file at ``target``, after a look at what is there."""
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return mode
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if not stat.S_ISREG(old.st_mode):
        raise _not_a_file(path)
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only")
    return stat.S_IMODE(old.st_mode) if mode is None else mode


def _not_a_file(path: str) -> SandboxError:
    text = f"{readable(path)!r} is neither a file nor a directory."
    return error("INVALID_PATH", text, remedy="Pipes, sockets and devices cannot be read or written in this way.")


def _move_across(source: str, destination: str) -> None:
    """Between two stores: copy beside the destination, swap it in, then delete the source."""
    if os.path.isdir(destination) and not os.path.islink(destination):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    temporary = f"{os.path.dirname(destination)}/.sandbox-move-{os.urandom(8).hex()}"
    try:
        shutil.move(source, temporary)
        os.replace(temporary, destination)
    except OSError:
        if os.path.lexists(temporary) and not os.path.lexists(source):
            shutil.move(temporary, source)
        raise


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"
