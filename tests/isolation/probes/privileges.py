"""Privileges: becoming root, new name spaces, mounts, and what only the machine's administrator may do."""

from __future__ import annotations

from ..probe import OUTSIDE, Held, Probe, by

ROOT_ONLY = {"bubblewrap": by(OUTSIDE), "docker": by("ordinary user", "capabilities")}
_OWN_USER_NAMESPACE = {
    "bubblewrap": by("system call filter", "capabilities"),
    "docker": by("ordinary user", "capabilities"),
}
IN_NAMESPACE = {
    # Its other namespaces belong to the user namespace around the one that it is in.
    "bubblewrap": by("system call filter", "capabilities", "inner user namespace"),
    "docker": by("ordinary user", "capabilities"),
}
_ALWAYS = "bwrap sets it whatever its options are"

PROBES = (
    Probe(
        "hold a capability, in any set",
        """
status = open('/proc/self/status').read()
return [line for line in status.splitlines() if line.startswith('Cap') and int(line.split()[1], 16)]
""",
        {"bubblewrap": by("capabilities"), "docker": by("capabilities")},
    ),
    Probe(
        "gain privileges by executing something (no-new-privileges)",
        "return libc.prctl(39, 0, 0, 0, 0) == 0",
        {"bubblewrap": Held(no_control=_ALWAYS), "docker": by("no new privileges")},
    ),
    Probe(
        "become root by a set-uid program",
        """
program = subprocess.Popen(['passwd', '--status'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)  # ended, but its ids can still be read
ids = next(line for line in open(f'/proc/{program.pid}/status') if line.startswith('Uid:')).split()
program.wait()
return '0' in ids
""",
        {
            "bubblewrap": Held(no_control="bwrap always mounts nosuid, and root is not mapped"),
            "docker": by("no new privileges"),
        },
    ),
    Probe(
        "make a user namespace (unshare)",
        "return call('unshare', 0x10000000)",
        {"bubblewrap": by("system call filter", "no nested user namespaces"), "docker": by("system call filter")},
    ),
    Probe(
        "make a user namespace (clone)",
        """
child = libc.syscall(ctypes.c_long(CALL['clone']), ctypes.c_long(0x10000000 | 17), None, None, None, None)
if child == 0:
    os._exit(0)
check(child)
os.waitpid(child, 0)
return True
""",
        {"bubblewrap": by("system call filter", "no nested user namespaces"), "docker": by("system call filter")},
    ),
    Probe("make a mount namespace", "return call('unshare', 0x20000)", _OWN_USER_NAMESPACE),
    Probe(
        "mount a file system",
        "return call('mount', b'none', b'/tmp', b'tmpfs', 0, None) and call('umount2', b'/tmp', 0)",
        IN_NAMESPACE,
    ),
    Probe("change the root directory (chroot)", "return call('chroot', b'/tmp')", _OWN_USER_NAMESPACE),
    Probe(
        "change the root directory (pivot_root)",
        "return call('pivot_root', b'/', b'/', reached=('EINVAL', 'EBUSY'))",
        {**IN_NAMESPACE, "docker": by("ordinary user", "capabilities", "system call filter")},
    ),
    Probe("change the host name", "return call('sethostname', b'other', 5)", IN_NAMESPACE),
    Probe("reboot", "return call('reboot', 0, 0, 0, None, reached=('EINVAL',))", IN_NAMESPACE),
    Probe(
        "set the clock",
        """
import time
now = time.time_ns()
return call('clock_settime', 0, struct.pack('ll', *divmod(now, 10**9)))
""",
        ROOT_ONLY,
    ),
    Probe(
        "load a kernel module",
        "return call('init_module', None, 0, b'', reached=('EFAULT', 'ENOEXEC', 'EINVAL'))",
        ROOT_ONLY,
    ),
    Probe("read the kernel's log", "return call('syslog', 10, None, 0)", ROOT_ONLY),
    Probe(
        "read the kernel's log by its device",
        "return readable('/dev/kmsg')",
        {
            "bubblewrap": by(OUTSIDE),
            "docker": by("private devices", "ordinary user", "capabilities"),
        },
    ),
    Probe(
        "make a device node",
        "check(libc.syscall(ctypes.c_long(CALL['mknodat']), -100, b'/tmp/device', 0o060600, ctypes.c_ulong(0x700)))\n"
        "os.unlink('/tmp/device')\n"
        "return True",
        ROOT_ONLY,
    ),
    Probe(
        "open files by handle, around all directories",
        "handle = struct.pack('Ii', 8, 1) + bytes(8)\n"
        "return call('open_by_handle_at', os.open('/', os.O_RDONLY), handle, 0, reached=('ESTALE', 'EINVAL'))",
        ROOT_ONLY,
    ),
    Probe(
        "switch off swap",
        "return call('swapoff', b'/nothing/there', reached=('ENOENT',))",
        {"bubblewrap": by(OUTSIDE), "docker": by("ordinary user", "capabilities", "system call filter")},
    ),
)
