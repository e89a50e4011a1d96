"""What a sandbox sees and may do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .conftest import PYTHON, Place, run

pytestmark = pytest.mark.bubblewrap


async def test_it_is_the_user_sandbox_on_the_host_sandbox_in_the_workspace(place: Place) -> None:
    runtime = await place.start()
    seen = await run(
        runtime,
        "import pwd, time\n"
        "print(os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_name, socket.gethostname())\n"
        "print(os.getcwd(), os.environ['HOME'], os.environ['USER'], time.tzname[0], sys.getfilesystemencoding())",
    )
    assert seen.splitlines() == [
        "1000 1000 sandbox sandbox",
        "/workspace /home/sandbox sandbox UTC utf-8",
    ]


async def test_nothing_of_the_hosts_environment_enters(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "42-is-secret")
    runtime = await place.start()
    everything = await run(
        runtime,
        "import glob\nfor path in glob.glob('/proc/[0-9]*/environ'): print(open(path).read())\nprint(dict(os.environ))",
    )
    assert "secret" not in everything.lower()


async def test_of_the_hosts_files_only_the_system_and_the_python_are_seen(place: Place) -> None:
    runtime = await place.start()
    seen = json.loads(
        await run(
            runtime,
            "import json\nprint(json.dumps({path: os.path.exists(path) for path in "
            f"('/etc/shadow', '/etc/machine-id', '/var/log', '/sys', '/boot', {str(Path(__file__))!r}, "
            f"{PYTHON.prefix!r}, {PYTHON.base_prefix!r}, '/usr/bin')}}))",
        )
    )
    assert [path for path, there in seen.items() if there] == list(
        dict.fromkeys([PYTHON.prefix, PYTHON.base_prefix, "/usr/bin"])
    )


async def test_only_its_own_directories_can_be_written(place: Place) -> None:
    runtime = await place.start()
    written = await run(
        runtime,
        "for top in ('/', '/usr', '/etc', '/dev', '/opt', '/opt/jupyter-sandbox', '/home', '/var', '/run', '/bin', "
        f"{PYTHON.prefix!r}, {PYTHON.base_prefix!r}, '/proc', '/workspace', '/home/sandbox', '/tmp', '/var/tmp', "
        "'/dev/shm'):\n"
        "    try: open(top + '/new', 'w').close()\n"
        "    except OSError: continue\n"
        "    print(top)",
    )
    assert written.split() == ["/workspace", "/home/sandbox", "/tmp", "/var/tmp", "/dev/shm"]


async def test_every_namespace_is_its_own(place: Place) -> None:
    runtime = await place.start()
    names = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    inside = await run(runtime, f"for name in {names}: print(os.readlink('/proc/self/ns/' + name))")
    assert not set(inside.split()) & {str(Path(f"/proc/self/ns/{name}").readlink()) for name in names}


async def test_it_sees_no_processes_but_its_own(place: Place) -> None:
    runtime = await place.start()
    pids = await run(runtime, "print(*sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))")
    assert pids.split() == ["1"]


async def test_it_has_no_capabilities_and_gains_none(place: Place) -> None:
    runtime = await place.start()
    status = dict(
        line.split(":\t", 1) for line in (await run(runtime, "print(open('/proc/self/status').read())")).splitlines()
    )
    sets = {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert (sets, status["NoNewPrivs"], status["Seccomp"]) == ({"0" * 16}, "1", "2")


async def test_no_descriptor_of_the_host_is_inherited(place: Place) -> None:
    with Path(__file__).open() as inheritable:
        os.set_inheritable(inheritable.fileno(), True)
        runtime = await place.start()
        seen = await run(
            runtime,
            "import glob\nfor path in glob.glob('/proc/[0-9]*/fd/*'):\n"
            "    try: print(os.readlink(path).split(':[')[0])\n"
            "    except OSError: pass",
        )
    assert set(seen.splitlines()) <= {
        "/dev/null",
        "socket",
        "/memfd:stderr (deleted)",
        "anon_inode:[eventfd]",
        "pipe",
        "anon_inode",
    }


async def test_no_path_of_the_lifetime_stands_in_a_command_line_inside(place: Place) -> None:
    runtime = await place.start()
    assert str(place.root) not in await run(runtime, "print(open('/proc/1/cmdline').read())")


async def test_there_is_a_loopback_and_no_other_network(place: Place) -> None:
    runtime = await place.start()
    said = await run(
        runtime,
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(socket.create_connection(server.getsockname()).getpeername()[0], socket.if_nameindex())\n"
        "try: socket.create_connection(('192.0.2.1', 80), 2)\n"
        "except OSError as e: print(e.errno)",
    )
    assert said.split("\n") == ["127.0.0.1 [(1, 'lo')]", "101"]


SYSTEM_CALLS = """
import ctypes, errno, fcntl, platform, pty
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == 'x86_64'
def call(name, a, b, *args):
    result = libc.syscall(a if x86 else b, *args)
    print(name, errno.errorcode.get(ctypes.get_errno()) if result < 0 else 'allowed')
call('unshare', 272, 97, 0x10000000)
call('mount', 165, 40, b'none', b'/tmp', b'tmpfs', 0, None)
call('setns', 308, 268, 0, 0)
call('clone3', 435, 435, None, 0)
call('keyctl', 250, 219, 0, -3, 0)
call('io_uring_setup', 425, 425, 1, None)
call('bpf', 321, 280, 0, None, 0)
call('perf_event_open', 298, 241, None, 0, -1, -1, 0)
call('userfaultfd', 323, 282, 1)
call('open_by_handle_at', 304, 265, 0, None, 0)
call('clone-newuser', 56, 220, 0x10000000 | 17, 0, 0, 0, 0)
call('a future one', 467, 467)
for family in (17, 38, 40, 31):
    try: socket.socket(family, socket.SOCK_RAW if family == 17 else socket.SOCK_SEQPACKET); print(family, 'allowed')
    except OSError as e: print(family, errno.errorcode[e.errno])
controller, terminal = pty.openpty()
for request in (0x5412, 0x541C):
    try: fcntl.ioctl(terminal, request, b'x'); print('tty', 'allowed')
    except OSError as e: print('tty', errno.errorcode[e.errno])
"""


async def test_dangerous_system_calls_are_refused(place: Place) -> None:
    runtime = await place.start()
    assert (await run(runtime, SYSTEM_CALLS)).splitlines() == [
        *("unshare EPERM", "mount EPERM", "setns EPERM", "clone3 ENOSYS", "keyctl ENOSYS", "io_uring_setup ENOSYS"),
        *("bpf ENOSYS", "perf_event_open ENOSYS", "userfaultfd ENOSYS", "open_by_handle_at EPERM"),
        *("clone-newuser EPERM", "a future one ENOSYS"),
        *("17 EAFNOSUPPORT", "38 EAFNOSUPPORT", "40 EAFNOSUPPORT", "31 EAFNOSUPPORT", "tty EPERM", "tty EPERM"),
    ]


async def test_two_sandboxes_see_nothing_of_each_other(place: Place) -> None:
    one, two = await place.start(), await place.start()
    await run(one, "open('/workspace/mine', 'w').write('x'); open('/tmp/mine', 'w').write('x')")
    # A test environment below /tmp shows its mount point there, so the listing need not be empty.
    seen = "print([name for where in ('/workspace', '/tmp') for name in os.listdir(where) if name == 'mine'])"
    assert await run(one, seen) == "['mine', 'mine']"
    assert await run(two, seen) == "[]"


@pytest.mark.root
async def test_nothing_of_it_is_ever_executed_as_root(place: Place) -> None:
    from jupyter_sandbox.engines import processes

    runtime = await place.start()
    tree = processes.tree(runtime.handle["monitor"]["pid"])
    owners = {status.uid for one in tree if (status := processes.status(one.pid))}
    assert len(tree) == 2
    assert len(owners) == 1
    assert owners.pop() in range(200_000, 265_536)


@pytest.mark.root
async def test_each_lifetime_has_a_uid_of_its_own_and_keeps_it(place: Place) -> None:
    one, two = await place.start(), await place.start()
    uids = [(place.directory(r.lifetime) / "workspace").stat().st_uid for r in (one, two)]
    assert uids[0] != uids[1]
    await place.engine.stop(one, 5)
    again = await place.start(one.lifetime)
    await run(again, "open('/workspace/new', 'w').close()")
    assert (place.directory(one.lifetime) / "workspace/new").stat().st_uid == uids[0]


@pytest.mark.root
def test_every_test_here_passes_for_an_ordinary_user_with_an_environment_in_a_private_home(ordinary_user) -> None:
    done = ordinary_user(
        *("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not root", "-k", "not (cgroups and found)"),
        "tests/engines/bubblewrap",
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
