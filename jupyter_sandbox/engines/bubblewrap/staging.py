"""How an unprivileged uid gets at directories that only root can reach, and at nothing else of root's.

A root manager drops to a uid of the sandbox's own before bwrap runs. That uid cannot follow a path through a 0700
directory, and descriptors do not help, because bwrap resolves them to paths again. So the thread that starts bwrap
gets a mount namespace of its own, in which what the sandbox needs is mounted where everybody may go; nothing of it
is seen by the rest of the host, and it is gone with the sandbox.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ...errors import error

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000
_MS_NOSUID, _MS_NODEV = 0x2, 0x4
_STAGES = ("/mnt", "/media", "/srv", "/var/tmp", "/tmp")  # noqa: S108 - covered by a mount that only we see

_Made = TypeVar("_Made")


def staged(sources: Mapping[str, Path], work: Callable[[dict[str, Path]], _Made]) -> _Made:
    """Call ``work`` with the places at which every uid can reach ``sources`` (by the same names).

    Whatever process ``work`` starts sees these places, and nobody else does. For root only.
    """
    outcome: list[_Made] = []
    problem: list[BaseException] = []

    def on_a_thread_of_its_own() -> None:
        try:
            outcome.append(work(_mount(sources)))
        except BaseException as exc:
            problem.append(exc)

    # A mount namespace belongs to a thread; this one ends here and is never used for anything else.
    thread = threading.Thread(target=on_a_thread_of_its_own, name="jupyter-sandbox-start")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]


def _mount(sources: Mapping[str, Path]) -> dict[str, Path]:
    stage = _stage(sources)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _check(libc.unshare(_CLONE_NEWNS))
        _check(libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))
        _check(libc.mount(b"tmpfs", os.fsencode(stage), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=755,size=64k"))
        places = {name: stage / str(number) for number, name in enumerate(sources)}
        for name, source in sources.items():
            _make_place(places[name], source)
            _check(libc.mount(os.fsencode(source), os.fsencode(places[name]), None, _MS_BIND | _MS_REC, None))
    except OSError as exc:
        raise error(
            "START_FAILED",
            f"Root could not make a mount namespace for the sandbox: {exc.strerror}.",
            remedy="Run the manager as an ordinary user, or give it CAP_SYS_ADMIN.",
        ) from exc
    return places


def _stage(sources: Mapping[str, Path]) -> Path:
    """A directory that exists everywhere, and that none of the sources lies in."""
    real = [source.resolve() for source in sources.values()]
    for name in _STAGES:
        if Path(name).is_dir() and not any(path.is_relative_to(Path(name).resolve()) for path in real):
            return Path(name)
    raise error("START_FAILED", f"None of {', '.join(_STAGES)} is free to mount on.")


def _make_place(place: Path, source: Path) -> None:
    if source.is_dir():
        place.mkdir()
    else:
        place.touch()


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
