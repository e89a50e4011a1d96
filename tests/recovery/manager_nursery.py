"""A process that has imported the manager, and forks one for each line of orders that it reads: a start costs 30 ms.

Orders (JSON, all may be left out) are the faults that only the inside of a manager can bring about:

``die_at``       the step (``reached``) at which it kills itself.
``die_before``   once it got SIGUSR2: the side effect (the how manieth) that it does not live to see.
``boot``         the id of the boot that it believes in.
``clock``        seconds by which its wall clock is wrong.
``patience``     seconds that the Docker daemon has for an answer.
"""

import contextlib
import gc
import json
import os
import signal
import sys
import traceback
from datetime import datetime, timedelta

from jupyter_sandbox.engines import bubblewrap, docker, processes  # noqa: F401 - imported once, for all of them
from jupyter_sandbox.engines.docker import daemon
from jupyter_sandbox.manager import activity, records
from jupyter_sandbox.manager.__main__ import ReadyLine, _log_to_file
from jupyter_sandbox.manager.app import main
from jupyter_sandbox.manager.place import Place

EFFECTS = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "shutil.rmtree"),
    *("subprocess.Popen", "socket.bind", "http.client.send"),
}
"""What Python announces before it changes the world outside of the process."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DeathBeforeAnEffect:
    """Counts side effects from SIGUSR2 on, and kills the process right before one of them."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._armed = False
        sys.addaudithook(self._hear)
        signal.signal(signal.SIGUSR2, self._arm)
        self._before(records.Records, "_commit")
        self._before(signal, "pidfd_send_signal")

    def _arm(self, *_: object) -> None:
        self._armed = True

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self._armed:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in EFFECTS or writes:
            self._count()

    def _before(self, owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(*arguments: object, **options: object) -> object:
            self._count()
            return original(*arguments, **options)

        setattr(owner, name, counted)

    def _count(self) -> None:
        if self._armed:
            self._left -= 1
            if self._left <= 0:
                die()


def move_the_clock(seconds: float) -> None:
    class Wrong(datetime):
        """The wall clock, wrong."""

        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(tz) + timedelta(seconds=seconds)

    records.datetime = activity.datetime = Wrong


def obey(orders: dict) -> int:
    """Be a manager."""
    if "die_before" in orders:
        DeathBeforeAnEffect(orders["die_before"])
    if "boot" in orders:
        processes.boot_id = lambda: orders["boot"]
    if "clock" in orders:
        move_the_clock(orders["clock"])
    if "patience" in orders:
        daemon.CALL_TIMEOUT = orders["patience"]
    place = Place()
    with contextlib.suppress(OSError):  # a full disk takes no log either
        _log_to_file(place)
    return main(
        place,
        ReadyLine(orders["ready"]),
        reached=lambda step: die() if step == orders.get("die_at") else None,
    )


def bear(orders: dict) -> dict:
    """Fork a manager; return its pid and its ready line."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            os.close(reading)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.setsid()
            os.umask(0o077)
            code = obey({**orders, "ready": writing})
        except BaseException:  # there is nobody above us to tell: this is a fork
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        line = pipe.readline()
    return {"pid": pid, "ready": json.loads(line) if line else None}


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(bear(json.loads(line))), flush=True)
