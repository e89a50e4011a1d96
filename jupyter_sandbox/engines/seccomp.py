"""The seccomp filter of the bubblewrap engine: which system calls a sandbox may make, assembled here to classic BPF.

What a program can do without (namespaces, mounts, keys, modules, io_uring, clocks, consoles) is refused, because
every one of these has been a way out or the way to a kernel bug. Refused with EPERM is what needs a privilege
anyway; with ENOSYS what programs try and can do without, so that they take their other way (glibc: ``clone`` in
place of ``clone3``, whose flags a filter cannot read). System calls newer than the table get ENOSYS too.

Numbers are those of the kernel's ``asm/unistd_64.h`` (x86_64) and ``asm-generic/unistd.h`` (aarch64).
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import error

KNOWN_MAX = 466
"""The newest system call that was looked at (``removexattrat``, Linux 6.13); from 424 on all machines share numbers."""

ALLOW = 0x7FFF0000
KILL = 0x80000000
_ERRNO = 0x00050000

CLONE_NEW = 0x7E020000
"""All ``CLONE_NEW*`` flags of ``clone``; ``CLONE_NEWTIME`` is no flag of ``clone`` but a part of its exit signal."""

TIOCSTI, TIOCLINUX = 0x5412, 0x541C
"""Terminal requests that type, or paste, into a terminal for somebody else."""

FAMILIES = (1, 2, 10, 16)
"""Socket families that a sandbox may use: UNIX, INET, INET6, NETLINK."""


def refuse(number: int) -> int:
    """The return value of a filter that refuses with ``number`` of errno."""
    return _ERRNO | number


class Call(NamedTuple):
    """The number of one system call on both machines; None where it does not exist."""

    x86_64: int | None
    aarch64: int | None


PRIVILEGED = {
    "mount": Call(165, 40),
    "umount2": Call(166, 39),
    "pivot_root": Call(155, 41),
    "chroot": Call(161, 51),
    "open_tree": Call(428, 428),
    "move_mount": Call(429, 429),
    "fsopen": Call(430, 430),
    "fsconfig": Call(431, 431),
    "fsmount": Call(432, 432),
    "fspick": Call(433, 433),
    "mount_setattr": Call(442, 442),
    "setns": Call(308, 268),
    "unshare": Call(272, 97),
    "open_by_handle_at": Call(304, 265),
    "quotactl": Call(179, 60),
    "quotactl_fd": Call(443, 443),
    "swapon": Call(167, 224),
    "swapoff": Call(168, 225),
    "reboot": Call(169, 142),
    "acct": Call(163, 89),
    "settimeofday": Call(164, 170),
    "clock_settime": Call(227, 112),
    "clock_adjtime": Call(305, 266),
    "adjtimex": Call(159, 171),
    "iopl": Call(172, None),
    "ioperm": Call(173, None),
    "vhangup": Call(153, 58),
    "sethostname": Call(170, 161),
    "setdomainname": Call(171, 162),
    "syslog": Call(103, 116),
    "fanotify_init": Call(300, 262),
    "migrate_pages": Call(256, 238),
    "move_pages": Call(279, 239),
}
"""Refused with EPERM."""

ABSENT = {
    "clone3": Call(435, 435),
    "keyctl": Call(250, 219),
    "add_key": Call(248, 217),
    "request_key": Call(249, 218),
    "bpf": Call(321, 280),
    "perf_event_open": Call(298, 241),
    "userfaultfd": Call(323, 282),
    "io_uring_setup": Call(425, 425),
    "io_uring_enter": Call(426, 426),
    "io_uring_register": Call(427, 427),
    "kexec_load": Call(246, 104),
    "kexec_file_load": Call(320, 294),
    "init_module": Call(175, 105),
    "finit_module": Call(313, 273),
    "delete_module": Call(176, 106),
    "create_module": Call(174, None),
    "get_kernel_syms": Call(177, None),
    "query_module": Call(178, None),
    "nfsservctl": Call(180, 42),
    "lookup_dcookie": Call(212, 18),
    "uselib": Call(134, None),
    "ustat": Call(136, None),
    "sysfs": Call(139, None),
    "_sysctl": Call(156, None),
}
"""Refused with ENOSYS."""

CLONE = Call(56, 220)
IOCTL = Call(16, 29)
SOCKET = Call(41, 198)
SOCKETPAIR = Call(53, 199)
SCHED_SETAFFINITY = Call(203, 122)

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Offsets in struct seccomp_data; of an argument only the lower half is read, because the kernel takes these
# arguments as 32 bits.
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24

# Classic BPF: load a word at k; jump if equal, greater, or any bit set; return k.
_LOAD, _JEQ, _JGT, _JSET, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06


class Instruction(NamedTuple):
    """One ``struct sock_filter``; ``jt`` and ``jf`` count the instructions to skip."""

    code: int
    jt: int
    jf: int
    k: int


def supported(machine: str | None = None) -> bool:
    """Whether there is a filter for this machine."""
    return (machine or platform.machine()) in _ARCHITECTURES


def build(*, pin_cpus: bool = False, machine: str | None = None) -> bytes:
    """The filter as ``bwrap --seccomp`` reads it: an array of ``struct sock_filter``.

    Parameters
    ----------
    pin_cpus:
        Refuse ``sched_setaffinity``, because the affinity is what limits the sandbox's CPUs.
    machine:
        ``x86_64`` or ``aarch64``; default: this machine.

    Raises
    ------
    Failed
        ``START_FAILED`` on any other machine: a sandbox without a filter is not started.
    """
    program = assemble(pin_cpus=pin_cpus, machine=machine or platform.machine())
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def assemble(*, pin_cpus: bool, machine: str) -> list[Instruction]:
    """The filter as instructions; see :func:`build`."""
    if machine not in _ARCHITECTURES:
        raise error(
            "START_FAILED",
            f"There is no system call filter for the machine type {machine}.",
            remedy="Use the Docker engine, or a machine of type x86_64 or aarch64.",
        )
    privileged = [*PRIVILEGED.values(), *([SCHED_SETAFFINITY] if pin_cpus else [])]
    return [
        Instruction(_LOAD, 0, 0, _ARCH),
        Instruction(_JEQ, 1, 0, _ARCHITECTURES[machine]),
        Instruction(_RETURN, 0, 0, KILL),
        Instruction(_LOAD, 0, 0, _NR),
        Instruction(_JGT, 0, 1, KNOWN_MAX),  # x32 has bit 30 set in all its numbers
        Instruction(_RETURN, 0, 0, refuse(errno.ENOSYS)),
        *_refused(_numbers(privileged, machine), errno.EPERM),
        *_refused(_numbers(ABSENT.values(), machine), errno.ENOSYS),
        *_only(_numbers([CLONE], machine), _ARG0, [(_JSET, CLONE_NEW)], refuse(errno.EPERM), ALLOW),
        *_only(_numbers([IOCTL], machine), _ARG1, [(_JEQ, TIOCSTI), (_JEQ, TIOCLINUX)], refuse(errno.EPERM), ALLOW),
        *_only(
            _numbers([SOCKET, SOCKETPAIR], machine),
            _ARG0,
            [(_JEQ, family) for family in FAMILIES],
            ALLOW,
            refuse(errno.EAFNOSUPPORT),
        ),
        Instruction(_RETURN, 0, 0, ALLOW),
    ]


def _numbers(calls: Iterable[Call], machine: str) -> list[int]:
    return [number for call in calls if (number := getattr(call, machine)) is not None]


def _refused(numbers: list[int], number: int) -> list[Instruction]:
    """Return ``number`` for each of ``numbers``, two instructions each."""
    checks = [(Instruction(_JEQ, 0, 1, nr), Instruction(_RETURN, 0, 0, refuse(number))) for nr in numbers]
    return [instruction for check in checks for instruction in check]


def _only(
    numbers: list[int], argument: int, tests: list[tuple[int, int]], matched: int, otherwise: int
) -> list[Instruction]:
    """For each of ``numbers``: return ``matched`` if one of ``tests`` on ``argument`` holds, else ``otherwise``."""
    checks = [Instruction(code, len(tests) - place, 0, k) for place, (code, k) in enumerate(tests)]
    body = [
        Instruction(_LOAD, 0, 0, argument),
        *checks,
        Instruction(_RETURN, 0, 0, otherwise),
        Instruction(_RETURN, 0, 0, matched),
    ]
    return [instruction for nr in numbers for instruction in (Instruction(_JEQ, 0, len(body), nr), *body)]
