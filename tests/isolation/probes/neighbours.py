"""Another sandbox of the same owner on the same engine: its files, processes, sockets and memory."""

from __future__ import annotations

from ..probe import Probe, by
from .host import same

PROBES = (
    Probe(
        "read a file of another sandbox",
        "return readable(IT['neighbour']['file'])",
        {
            "bubblewrap": by("file system view", "unprivileged uid"),
            "user": by("file system view"),
            "docker": by("file system view", "ordinary user"),
        },
    ),
    Probe(
        "see a process of another sandbox",
        """
mark = IT['neighbour']['mark'].encode()
return first(glob.glob('/proc/[0-9]*/cmdline'), lambda path: mark in open(path, 'rb').read() and path)
""",
        same("pid namespace"),
    ),
    Probe(
        "connect to the loopback of another sandbox",
        "return reaches(socket.AF_INET, ('127.0.0.1', IT['neighbour']['port']))",
        same("network namespace"),
    ),
    Probe(
        "connect to an abstract socket of another sandbox",
        "return reaches(socket.AF_UNIX, '\\0' + IT['neighbour']['abstract'])",
        same("network namespace"),
    ),
    Probe(
        "attach System V shared memory of another sandbox",
        "return check(libc.shmget(IT['neighbour']['key'], 1, 0))",
        same("IPC namespace"),
    ),
    Probe(
        "read POSIX shared memory of another sandbox",
        "return readable('/dev/shm/' + IT['neighbour']['mark'])",
        {"bubblewrap": by("private shared memory"), "docker": by("IPC namespace")},
    ),
    Probe(
        "see a file in the /tmp of another sandbox",
        "return readable('/tmp/' + IT['neighbour']['mark'])",
        {"bubblewrap": by("private /tmp"), "docker": by("private /tmp")},
    ),
)
