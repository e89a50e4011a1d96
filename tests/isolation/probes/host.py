"""The host: its files, processes, sockets, memory, devices, environment and names."""

from __future__ import annotations

from ..probe import Held, Open, Probe, by

_SHARED_MEMORY = {"bubblewrap": by("private shared memory"), "docker": by("IPC namespace")}
_NO_TRACE = "the kernel lets nobody trace out of a user namespace, and bwrap always makes one"


def same(*layers: str) -> dict[str, Held | Open]:
    """The same layers on both engines."""
    return {"bubblewrap": by(*layers), "docker": by(*layers)}


PROBES = (
    Probe("read a file of the host that everybody may read", "return readable(IT['public'])", same("file system view")),
    Probe(
        "read a private file of the manager's user",
        "return readable(IT['private'])",
        {
            "bubblewrap": by("file system view", "unprivileged uid"),
            "user": by("file system view"),
            "docker": by("file system view", "ordinary user"),
        },
    ),
    Probe(
        "read the host's password hashes",
        "return first(['/etc/shadow'], lambda path: b':$' in open(path, 'rb').read() or path.startswith('/host'))",
        {
            "bubblewrap": by("file system view", "unprivileged uid"),
            "user": Held(no_control="an ordinary user cannot read them outside either"),
            "docker": by("file system view", "ordinary user"),
        },
    ),
    Probe(
        "talk to the Docker daemon",
        "return first(['/run/docker.sock', '/var/run/docker.sock'], lambda path: reaches(socket.AF_UNIX, path))",
        {
            "bubblewrap": by("file system view", "unprivileged uid"),
            "user": Held(no_control="this ordinary user cannot talk to it outside either"),
            "docker": by("file system view", "ordinary user"),
        },
    ),
    Probe(
        "write the agent's program",
        "return writable(IT['agent'])",
        {"bubblewrap": by("read-only mounts"), "docker": by("read-only mounts", "ordinary user", "capabilities")},
    ),
    Probe(
        "write the root directory",
        "os.close(os.open('/probe', os.O_CREAT | os.O_WRONLY))\nreturn '/probe'",
        {"bubblewrap": by("read-only root"), "docker": by("ordinary user")},
    ),
    Probe(
        "write the directory of devices",
        "os.close(os.open('/dev/probe', os.O_CREAT | os.O_WRONLY))\nreturn '/dev/probe'",
        {"bubblewrap": by("read-only devices"), "docker": by("ordinary user")},
    ),
    Probe(
        "open a device of the machine",
        """
harmless = {(1, n) for n in (3, 5, 7, 8, 9)} | {(5, n) for n in (0, 1, 2)}
def use(path):
    found = os.stat(path)
    known = (os.major(found.st_rdev), os.minor(found.st_rdev)) in harmless or os.major(found.st_rdev) in (136, 4)
    if known or not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        return None
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    return path
return first(glob.glob('/dev/**', recursive=True), use)
""",
        {
            "bubblewrap": by("private devices"),
            "docker": by("private devices", "ordinary user"),
        },
    ),
    Probe(
        "see a process of the host",
        """
mark = IT['mark'].encode()
return first(glob.glob('/proc/[0-9]*/cmdline'), lambda path: mark in open(path, 'rb').read() and path)
""",
        same("pid namespace"),
    ),
    Probe(
        "signal a process of the host that has the same uid",
        """
def use(path):
    if IT['mark'].encode() in open(path, 'rb').read():
        os.kill(int(path.split('/')[2]), 0)
        return path
return first(glob.glob('/proc/[0-9]*/cmdline'), use)
""",
        same("pid namespace"),
    ),
    Probe(
        "trace a process of the host that has the same uid",
        "return call('ptrace', 0x4206, IT['pid'], None, None)",
        {"bubblewrap": Held(no_control=_NO_TRACE), "docker": by("pid namespace")},
    ),
    Probe(
        "connect to the host's loopback",
        "return reaches(socket.AF_INET, ('127.0.0.1', IT['port']))",
        same("network namespace"),
    ),
    Probe(
        "connect to an abstract socket of the host",
        "return reaches(socket.AF_UNIX, '\\0' + IT['abstract'])",
        same("network namespace"),
    ),
    Probe(
        "attach System V shared memory of the host", "return check(libc.shmget(IT['key'], 1, 0))", same("IPC namespace")
    ),
    Probe("read POSIX shared memory of the host", "return readable('/dev/shm/' + IT['mark'])", _SHARED_MEMORY),
    Probe(
        "read the host's environment",
        "seen = open('/proc/1/environ', 'rb').read() + repr(dict(os.environ)).encode()\n"
        "return IT['environment'].encode() in seen",
        {"bubblewrap": by("cleared environment", "started without environment"), "docker": by("cleared environment")},
    ),
    Probe("learn the host's name", "return os.uname().nodename == IT['hostname']", same("host name namespace")),
    Probe(
        "learn its place among the host's control groups",
        "return [line for line in open('/proc/self/cgroup') if not line.rstrip().endswith(':/')]",
        {
            **same("cgroup namespace"),
            "user": Held(no_control="without a control group of its own there is nothing to learn"),
        },
    ),
)
