"""One installation whose manager is killed and started again, as often as a test likes, and what it is asked."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jupyter_sandbox.errors import CODES

PATIENCE = 60.0
"""Seconds that anything may take on a slow machine."""


class ManagerDied(Exception):
    """The manager ended before it had answered."""


class _OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("manager", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class World:
    """Private directories, and the managers that hold them one after the other.

    Parameters
    ----------
    engine:
        The engine of every sandbox here.
    place:
        A short path of our own.
    """

    def __init__(self, engine: str, place: Path, **environment: str) -> None:
        self.engine = engine
        self.place = place
        self.faults: dict[str, int] = {}
        self.lifetimes: set[str] = set()
        (place / "r").mkdir(mode=0o700)
        self.environment = {
            **os.environ,
            "JUPYTER_DATA_DIR": str(place / "d"),
            "JUPYTER_CONFIG_DIR": str(place / "c"),
            "XDG_RUNTIME_DIR": str(place / "r"),
            **environment,
        }
        self._nursery = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("manager_nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        self._pidfd: int | None = None
        self._socket: Path | None = None
        self.pid = 0
        self._ids = 0

    # --- the manager ------------------------------------------------------------------------------------------

    def start(self, **orders: Any) -> dict[str, Any] | None:
        """Start a manager (see manager_nursery.py for ``orders``); returns its ready line, None if it died."""
        assert not self.alive, "one manager at a time"
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(orders).encode() + b"\n")
        self._nursery.stdin.flush()
        born = json.loads(self._nursery.stdout.readline())
        self._let_go()
        self.pid = born["pid"]
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(self.pid)
        if born["ready"] is not None and "socket" in born["ready"]:
            self._socket = Path(born["ready"]["socket"])
        elif "die_at" not in orders and "die_before" not in orders and born["ready"] is None:
            raise AssertionError("the manager ended before it was ready")
        return born["ready"]

    @property
    def alive(self) -> bool:
        """Whether the manager runs."""
        return self._pidfd is not None and not select.select([self._pidfd], [], [], 0)[0]

    def send(self, number: int) -> None:
        """Signal the manager, if it still runs."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.Signals(number))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the manager, and return once it has ended."""
        self.send(number)
        self.wait()

    def wait(self) -> None:
        """Return once the manager has ended."""
        if self._pidfd is not None:
            assert select.select([self._pidfd], [], [], PATIENCE)[0], "the manager does not end"

    def begin_again(self, **orders: Any) -> None:
        """Kill the manager if it runs, and start the next one."""
        self.kill()
        self.start(**orders)

    def close(self) -> None:
        """End everything."""
        self.kill()
        self._let_go()
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        self._nursery.wait(PATIENCE)

    def _let_go(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: object = None, data: bytes | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer (a list for a stream of lines, bytes for a file).

        Raises
        ------
        ManagerDied
            It went away before it had answered.
        """
        assert self._socket is not None
        url = path if path.startswith("/") else f"/sandboxes/-/{path}"
        content = data if data is not None else None if body is None else json.dumps(body).encode()
        with contextlib.closing(_OverUnixSocket(self._socket)) as connection:
            try:
                connection.request(method, url, content, {"Content-Type": "application/json"} if data is None else {})
                answer = connection.getresponse()
                text = answer.read()
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException) as exc:
                raise ManagerDied(str(exc)) from exc
        kind = answer.getheader("Content-Type", "")
        if "ndjson" in kind:
            return answer.status, [json.loads(line) for line in text.splitlines()]
        return answer.status, json.loads(text) if "json" in kind else text

    def new_id(self) -> str:
        """An ID that was never used here."""
        self._ids += 1
        return f"s{self._ids}"

    def put(self, sandbox_id: str, **options: Any) -> tuple[int, Any]:
        """Get or create, and start."""
        return self.ask("PUT", sandbox_id, {"options": {"engine": self.engine, **options}})

    def set_options(self, sandbox_id: str, **options: Any) -> None:
        """Change options without starting it."""
        status, said = self.ask("PUT", sandbox_id, {"options": options, "start": False})
        assert status == 200, said

    def create(self, sandbox_id: str, **options: Any) -> dict[str, Any]:
        """A sandbox that runs, with a file in it; what the manager says of it."""
        status, body = self.put(sandbox_id, **options)
        assert status == 200, body
        status, said = self.ask("PUT", f"{sandbox_id}/agent/files?path=kept", data=sandbox_id.encode())
        assert status == 204, said
        self.lifetimes.add(body["sandbox"]["lifetime"])
        return body["sandbox"]

    def look(self, sandbox_id: str) -> dict[str, Any]:
        """What the manager says of a sandbox; waking nothing."""
        status, body = self.ask("GET", sandbox_id)
        return body["sandbox"] if status == 200 else {"state": body["error"]["code"]}

    def until(self, sandbox_id: str, *states: str) -> dict[str, Any]:
        """Wait until the sandbox is in one of ``states``."""
        return eventually(lambda: found if (found := self.look(sandbox_id))["state"] in states else None, str(states))

    def sleep(self, sandbox_id: str) -> tuple[int, Any]:
        """Freeze it."""
        return self.ask("POST", f"{sandbox_id}/sleep", {"force": True})

    def destroy(self, sandbox_id: str) -> tuple[int, Any]:
        """Destroy it."""
        return self.ask("DELETE", sandbox_id)

    def read(self, sandbox_id: str) -> tuple[int, Any]:
        """The file that :meth:`create` wrote; this is work."""
        return self.ask("GET", f"{sandbox_id}/agent/files?path=kept")

    def next_call(self, sandbox_id: str, *, files: bool = True) -> str:
        """The next call works, or says what happened and those after it work; returns the code, or ``"works"``."""
        said = "works"
        while (answer := self._call(sandbox_id))[0] != 200:
            # An agent that was told to end may still take a call or two.
            assert said in ("works", "AGENT_UNREACHABLE"), answer
            said = code_of(answer[1])
            time.sleep(0.05)
        if files:
            assert self.read(sandbox_id) == (200, sandbox_id.encode()), "its files are not there"
        self.lifetimes.add(self.look(sandbox_id)["lifetime"])
        return said

    def _call(self, sandbox_id: str) -> tuple[int, Any]:
        if (answer := self.put(sandbox_id))[0] != 200:
            return answer
        status, body = self.ask("POST", f"{sandbox_id}/agent/exec", {"command": "echo works"})
        if status == 200 and "error" in body[-1]:
            return 500, body[-1]
        assert status != 200 or body[0]["data"] == "works\n", body
        return status, body

    def count(self, fault: str) -> None:
        """One run more of a fault."""
        self.faults[fault] = self.faults.get(fault, 0) + 1

    # --- what lies on the disk --------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        """The data directory."""
        return next((self.place / "d" / "sandbox").iterdir())

    @property
    def sockets(self) -> Path:
        """The private directory of sockets."""
        return next((self.place / "r").iterdir())

    @contextlib.contextmanager
    def records(self) -> Iterator[sqlite3.Connection]:
        """The records, for reading."""
        with contextlib.closing(sqlite3.connect(self.data / "records.sqlite", timeout=PATIENCE)) as connection:
            yield connection

    def known(self) -> dict[str, dict[str, Any]]:
        """Every record by its lifetime."""
        with self.records() as connection:
            rows = connection.execute("SELECT lifetime, body FROM sandboxes").fetchall()
        return {lifetime: json.loads(body) for lifetime, body in rows}

    @property
    def installation(self) -> str:
        """The id of the records."""
        with self.records() as connection:
            return str(connection.execute("SELECT value FROM meta WHERE name = 'installation'").fetchone()[0])


def code_of(body: Any) -> str:
    """The code of an error answer, which must be one of our family that a user can do something with."""
    error = body["error"]
    assert error["code"] in CODES, body
    assert error["code"] != "INTERNAL", body
    assert error["message"].strip(), body
    return str(error["code"])


def eventually(condition: Callable[[], Any], what: str = "it") -> Any:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)
    return result
