"""The kernel's larger doors: system calls with a history of holes, sockets of other kinds, and its files."""

from __future__ import annotations

from ..probe import OUTSIDE, Held, Open, Probe, by
from .privileges import IN_NAMESPACE

FILTER = {"bubblewrap": by("system call filter"), "docker": by("system call filter")}
_OWN_FILTER = {"bubblewrap": by("system call filter")}
_KERNEL_FILES = {
    "bubblewrap": by("unprivileged uid"),
    "user": Held(no_control="an ordinary user could not write them outside either"),
    "docker": by("ordinary user", "kernel files covered"),
}
_SYS = {
    "bubblewrap": by("unprivileged uid", "file system view"),
    "user": Held(no_control="an ordinary user could not write them outside either"),
    "docker": by("ordinary user", "kernel files covered"),
}

PROBES = (
    Probe("read the session's keyring", "return call('keyctl', 0, -3, 1)", FILTER),
    Probe("add a key to a keyring", "return call('add_key', b'user', b'probe', b'x', 1, -2)", FILTER),
    Probe(
        "load a BPF program",
        "return call('bpf', 0, struct.pack('IIII', 1, 4, 4, 1) + bytes(48), 64)",
        {"bubblewrap": by(OUTSIDE), "docker": by("ordinary user", "capabilities")},
    ),
    Probe(
        "count with perf",
        "attributes = struct.pack('IIQQQQQ', 1, 112, 0, 0, 0, 0, 1 | 1 << 5 | 1 << 6) + bytes(64)\n"
        "return call('perf_event_open', attributes, 0, -1, -1, 0)",
        FILTER,
    ),
    Probe("catch page faults (userfaultfd)", "return call('userfaultfd', 1)", FILTER),
    Probe(
        "use io_uring",
        "return call('io_uring_setup', 1, bytes(120))",
        {**_OWN_FILTER, "docker": Open("Docker's own profile allows it before Docker 25")},
    ),
    Probe(
        "type into a terminal for somebody else (TIOCSTI)",
        """
import fcntl, pty
child, terminal = pty.fork()
if child == 0:
    try:
        fcntl.ioctl(0, 0x5412, b'x')
        os._exit(0)
    except OSError as exc:
        os._exit(exc.errno)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if code:
    raise OSError(code, os.strerror(code))
return True
""",
        {**_OWN_FILTER, "docker": Open("only into terminals of its own: the container has none from outside")},
    ),
    Probe(
        "see how the clock is kept",
        "return call('adjtimex', bytes(512))",
        {**_OWN_FILTER, "docker": Open("reading it is harmless, and Docker's profile allows it")},
    ),
    Probe(
        "send raw packets",
        "return bool(socket.socket(17, socket.SOCK_RAW).close() or 'a packet socket')",
        IN_NAMESPACE,
    ),
    Probe(
        "open a socket to the machine's hypervisor (vsock)",
        "return bool(socket.socket(40, socket.SOCK_STREAM).close() or 'a vsock')",
        {**_OWN_FILTER, "docker": Open("Docker's own profile allows it before Docker 25")},
    ),
    Probe(
        "say what happens at a crash (core_pattern)", "return writable('/proc/sys/kernel/core_pattern')", _KERNEL_FILES
    ),
    Probe("reboot by SysRq", "return writable('/proc/sysrq-trigger')", _KERNEL_FILES, needs="/proc/sysrq-trigger"),
    Probe("change a setting of the kernel", "return writable('/proc/sys/vm/drop_caches')", _KERNEL_FILES),
    Probe(
        "change a setting below /sys",
        "return first(['/sys/kernel/uevent_helper', '/sys/kernel/profiling', '/sys/kernel/mm/ksm/run'], writable)",
        _SYS,
    ),
    Probe(
        "change its own limits in the control group's files",
        "paths = glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True)\n"
        "paths += glob.glob('/host/sys/fs/cgroup/*/cgroup.procs')\n"
        "return first(paths, writable)",
        _SYS,
    ),
)
