"""Acts that code in a sandbox must not be able to do: attempted for real on each engine, each beside one that works.

What each engine isolates is proven in its own tests; here is what an attacker tries first, through the public API.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox import Sandbox, get_sandbox, list_sandboxes
from jupyter_sandbox.errors import SandboxError

WRITES = (
    *("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe", "/proc/kcore"),
    *("/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs"),
    *("/proc/sys/net/ipv4/ip_forward", "/etc/passwd", "/opt/jupyter-sandbox/agent.pyz", "/run/sandbox/agent.pyz"),
)
"""Opened for writing only, nothing is written: an attack that succeeds must not harm this machine."""

INSIDE = f"""
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
def opened(path):
    try:
        os.close(os.open(path, os.O_WRONLY))
        return True
    except OSError:
        return False
def called(number, *arguments):
    return libc.syscall(number, *arguments) >= 0
x86 = os.uname().machine == 'x86_64'
out = dict(
    written=[path for path in {WRITES!r} if opened(path)],
    control=opened('/proc/self/comm'),
    user_namespace=called(272 if x86 else 97, 0x10000000),
    keyring=called(250 if x86 else 219, 0, -3, 0),
    bpf=called(321 if x86 else 280, 0, 0, 0),
    mount=called(165 if x86 else 40, b't', b'/mnt', b'tmpfs', 0, 0),
    pids=sorted(int(name) for name in os.listdir('/proc') if name.isdigit())[-1],
    abstract=[line for line in open('/proc/net/unix') if '@' in line],
    secrets=[name for name in os.environ if 'JSBTEST' in name],
    privileged=[line for line in open('/proc/self/status') if line.startswith('Cap') and int(line.split()[1], 16)],
    no_new_privileges='NoNewPrivs:\\t1' in open('/proc/self/status').read(),
    host_sockets=[path for path in ('/var/run/docker.sock', '/run/docker.sock') if os.path.exists(path)],
)
try:
    with open('/proc/self/oom_score_adj', 'w') as file:
        file.write('-1')
    out['oom'] = True
except OSError:
    out['oom'] = False
print(json.dumps(out))
"""


@pytest.fixture
def sandbox(engine_name: str, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setenv("JSBTEST_SECRET", "1")
    return get_sandbox("attacker")


def python(sandbox: Sandbox, source: str) -> str:
    return sandbox.exec("python3 -", stdin=source, check=True).stdout


def test_nothing_of_the_host_can_be_changed_seen_or_signalled(sandbox: Sandbox) -> None:
    found = json.loads(python(sandbox, INSIDE))
    assert found.pop("control")
    assert found.pop("no_new_privileges")
    assert found.pop("pids") < 1000
    assert {name: value for name, value in found.items() if value} == {}


def test_a_tree_that_resists_is_destroyed_and_what_it_links_to_stays(sandbox: Sandbox, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    python(
        sandbox,
        "import os, socket\n"
        f"os.symlink({str(tmp_path)!r}, 'out'); os.symlink('/etc', '/home/sandbox/etc'); os.mkfifo('fifo')\n"
        "socket.socket(socket.AF_UNIX).bind('sock')\n"
        "open(b'bad\\xff\\nname\\x1b[31m', 'w').close()\n"
        "os.mkdir('shut'); open('shut/file', 'w').close(); os.chmod('shut', 0)\n"
        "for _ in range(600):\n    os.mkdir('d' * 200); os.chdir('d' * 200)\n",
    )
    lifetimes = next(Path(os.environ["JUPYTER_DATA_DIR"]).glob("sandbox/*/sandboxes"))
    assert list(lifetimes.iterdir())
    sandbox.destroy()
    assert list(lifetimes.iterdir()) == []
    assert kept.read_text() == "kept"
    assert Path("/etc/passwd").exists()


def test_links_in_the_place_of_what_a_start_writes_lead_nowhere(sandbox: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    tmp_path.chmod(0o777)
    sandbox.exec(f"rm -rf ~/.venv; ln -s {tmp_path} ~/.venv; ln -sf {victim} ~/.profile", check=True)
    for name in ("sitecustomize", "usercustomize", "json", "asyncio"):
        sandbox.write_file(f"{name}.py", "open('/workspace/ran', 'w')")
    agent = "cut -d' ' -f22 /proc/1/stat"
    before = sandbox.exec(agent).stdout
    with contextlib.suppress(SandboxError):
        sandbox.exec("kill -TERM 1; sleep 3")
    with contextlib.suppress(SandboxError):  # the end itself may be the answer
        sandbox.exec("true")
    assert sandbox.exec("echo again").stdout == "again\n"
    assert sandbox.exec(agent).stdout != before
    assert not sandbox.exists("ran")
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert victim.read_text() == "mine"


class HostileAgent:
    """Listens in the place of an agent, and answers everything with the same bytes."""

    def __init__(self, path: str, answer: bytes) -> None:
        Path(path).unlink()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(self._answer)
            except ConnectionError:
                continue  # who asked has heard enough
            except OSError:
                return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


ESCAPE = "\x1b]0;x\x07\u202e"
CONTEXTS = json.dumps(
    {"busy": [], "contexts": [{"id": "k", "name": ESCAPE, "language": [], "state": 1}] * 2000}
).encode()
REFUSAL = json.dumps({"error": {"code": "IMAGE_MISSING", "message": ESCAPE * 9000, "details": {"cls": 1}}}).encode()


def answered(body: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body) if length is None else length, body)


@pytest.mark.parametrize(
    "answer",
    [
        answered(CONTEXTS),
        answered(REFUSAL, b"500 X"),
        answered(b"[" * 1_000_000),
        answered(b"", b"302 X\r\nLocation: http://127.0.0.1:1/\r\nSet-Cookie: a=b"),
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200_000,
        b"HTTP/1.1 200 OK\r\nContent-Type: a\x01b\r\nContent-Length: 0\r\n\r\n",
        b"\0garbage\r\n\r\n",
    ],
    ids=["contexts", "refusal", "deep", "redirect", "headers", "control", "garbage"],
)
@pytest.mark.bubblewrap
def test_a_hostile_agent_harms_nobody_else(environment: Any, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setenv("JUPYTER_SANDBOX_ENGINE", "bubblewrap")
    sandbox = get_sandbox("attacker")
    sandbox.start()
    with contextlib.closing(sqlite3.connect(environment.records)) as records:
        (body,) = records.execute("SELECT body FROM sandboxes").fetchone()
    with contextlib.closing(HostileAgent(json.loads(body)["runtime"]["socket"], answer)):
        for context in sandbox.status().contexts:
            assert not set(context.name + context.language) & set(ESCAPE[:1] + ESCAPE[-2:])
        with pytest.raises(SandboxError) as caught:
            sandbox.exec("true", timeout=1)
        assert not set(str(caught.value)) & set("\x1b\x07\u202e")
        assert caught.value.code != "INTERNAL"
        assert [one.state for one in list_sandboxes()] == ["running"]
        sandbox.sleep(force=True)
        sandbox.wake()
        sandbox.destroy()
    assert list_sandboxes() == []
    assert "Traceback" not in (environment.records.parent / "manager.log").read_text()
