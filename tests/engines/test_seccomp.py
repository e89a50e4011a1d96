"""The filter, executed by a simulator of classic BPF and compared with what it is meant to say."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.engines import seccomp
from jupyter_sandbox.engines.seccomp import ALLOW, KILL, refuse
from jupyter_sandbox.errors import SandboxError

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
EVERY_MACHINE = st.sampled_from(sorted(MACHINES))
NUMBERS = st.one_of(st.integers(0, 600), st.integers(0, 2**32 - 1), st.integers(0x40000000, 0x40000000 + 600))
ARGUMENTS = st.tuples(*[st.one_of(st.integers(0, 64), st.integers(0, 2**64 - 1))] * 6)


def simulate(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    """What the kernel would do: load, jump, return."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments)
    accumulator, at = 0, 0
    for _ in range(10_000):
        code, jt, jf, k = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:
            return int(k)
        else:
            test = {0x15: accumulator == k, 0x25: accumulator > k, 0x45: bool(accumulator & k)}[code]
            at += jt if test else jf
    raise AssertionError("the filter does not end")


def expected(machine: str, number: int, arguments: tuple[int, ...], pin_cpus: bool) -> int:
    """What the tables say."""
    names = {getattr(call, machine): name for name, call in seccomp.PRIVILEGED.items()}
    absent = {getattr(call, machine) for call in seccomp.ABSENT.values()}
    low = arguments[0] & 0xFFFFFFFF
    if number > seccomp.KNOWN_MAX or number in absent:
        return refuse(errno.ENOSYS)
    if number in names or (pin_cpus and number == getattr(seccomp.SCHED_SETAFFINITY, machine)):
        return refuse(errno.EPERM)
    if number == getattr(seccomp.CLONE, machine) and low & seccomp.CLONE_NEW:
        return refuse(errno.EPERM)
    if number == getattr(seccomp.IOCTL, machine) and arguments[1] & 0xFFFFFFFF in (0x5412, 0x541C):
        return refuse(errno.EPERM)
    if number in (getattr(seccomp.SOCKET, machine), getattr(seccomp.SOCKETPAIR, machine)):
        return ALLOW if low in (1, 2, 10, 16) else refuse(errno.EAFNOSUPPORT)
    return ALLOW


@given(machine=EVERY_MACHINE, number=NUMBERS, arguments=ARGUMENTS, pin_cpus=st.booleans())
def test_it_does_what_the_tables_say(machine: str, number: int, arguments: tuple[int, ...], pin_cpus: bool) -> None:
    program = seccomp.build(pin_cpus=pin_cpus, machine=machine)
    assert simulate(program, number, MACHINES[machine], arguments) == expected(machine, number, arguments, pin_cpus)


@pytest.mark.parametrize("machine", sorted(MACHINES))
@pytest.mark.parametrize("pin_cpus", [False, True])
def test_every_number_is_decided_as_the_tables_say(machine: str, pin_cpus: bool) -> None:
    program = seccomp.build(pin_cpus=pin_cpus, machine=machine)
    for number in range(700):
        for first in (0, 1, 16, 17, 0x10000000, 0x20000, 2**32, 2**32 + 40):
            arguments = (first, 0x5412, 0, 0, 0, 0)
            assert simulate(program, number, MACHINES[machine], arguments) == expected(
                machine, number, arguments, pin_cpus
            )


@given(machine=EVERY_MACHINE, number=NUMBERS, arch=st.integers(0, 2**32 - 1))
def test_calls_of_a_foreign_architecture_kill(machine: str, number: int, arch: int) -> None:
    if arch != MACHINES[machine]:
        assert simulate(seccomp.build(machine=machine), number, arch) == KILL


@given(flags=st.integers(0, 2**32 - 1), high=st.integers(0, 2**32 - 1), machine=EVERY_MACHINE)
def test_no_clone_makes_a_namespace(flags: int, high: int, machine: str) -> None:
    number = getattr(seccomp.CLONE, machine)
    done = simulate(seccomp.build(machine=machine), number, MACHINES[machine], (high << 32 | flags, 0, 0, 0, 0, 0))
    assert (done == ALLOW) == (flags & 0x7E020000 == 0)


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_a_thread_and_a_fork_are_allowed(machine: str) -> None:
    number = getattr(seccomp.CLONE, machine)
    for flags in (0x3D0F00, 17, 0x01200011, 0x4111):
        assert simulate(seccomp.build(machine=machine), number, MACHINES[machine], (flags, 0, 0, 0, 0, 0)) == ALLOW


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_every_way_through_it_is_short_and_ends_in_a_return(machine: str) -> None:
    program = seccomp.assemble(pin_cpus=True, machine=machine)
    assert len(program) < 4096
    for at, instruction in enumerate(program):
        assert at + 1 + max(instruction.jt, instruction.jf) < len(program) or instruction.code == 0x06


def test_no_number_stands_for_two_calls() -> None:
    for machine in MACHINES:
        numbers = [getattr(call, machine) for call in [*seccomp.PRIVILEGED.values(), *seccomp.ABSENT.values()]]
        known = [number for number in numbers if number is not None]
        assert len(known) == len(set(known))


def test_another_machine_is_refused_by_name() -> None:
    assert not seccomp.supported("riscv64")
    with pytest.raises(SandboxError, match="riscv64"):
        seccomp.build(machine="riscv64")
