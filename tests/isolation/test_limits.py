"""Limits hold against code that wants everything, and the agent answers meanwhile.

On both engines, and for bubblewrap also as where this machine lets us have no control groups. What cannot be enforced
there is said by ``isolation``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_sandbox.engines import cgroups
from jupyter_sandbox.options import MIB, ResolvedLimits

from .sandboxes import Inside, Sandboxes

LIMITS = ResolvedLimits(cpus=0.5, memory=256 * MIB, pids=64, disk=8 * MIB)
PERIOD = 0.1
"""Seconds of one period of the scheduler, of which a group may use its share."""

EATING = """
print('busy', flush=True)
while True:
    try:
        data = []
        while True: data.append(b'x' * 2**20)
    except MemoryError: pass
"""
KINDS = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("bubblewrap no_cgroups", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
]


@pytest.fixture(scope="module", params=KINDS)
def sandboxes(request: pytest.FixtureRequest) -> Iterator[Sandboxes]:
    """The sandboxes of each kind in turn."""
    with pytest.MonkeyPatch.context() as patch:
        if "no_cgroups" in request.param:
            patch.setattr(cgroups, "discover", dict)
        made = Sandboxes(request.param.split()[0])
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def inside(sandboxes: Sandboxes) -> Inside:
    """The sandbox that the tests of one kind share."""
    return sandboxes.start(limits=LIMITS)


def group_of(inside: Inside, controller: cgroups.Controller) -> Path:
    """The directory of its control group, whichever engine made it; skips where it has none."""
    enforced = {one.name for one in inside.runtime.isolation if one.enforced}
    name = {"cpu": "cpus", "cpuacct": "cpus"}.get(controller, controller)
    if name not in enforced or inside.runtime.handle.get("cgroups") == {}:
        pytest.skip(f"no control group for {controller} here")
    handle = inside.runtime.handle
    own = cgroups.memberships(handle["pid"] if "pid" in handle else handle["init"]["pid"])
    for mount in cgroups.mounts():
        path = mount.own(own)
        if path is not None and (
            controller in mount.controllers or (mount.v2 and (path / f"{controller}.stat").exists())
        ):
            return path
    pytest.skip(f"its control group for {controller} cannot be seen from here")


def cpu_used(inside: Inside) -> tuple[float, int, int]:
    """Seconds of CPU, and how many periods it ran in and was held back in."""
    stat = dict(line.split() for line in (group_of(inside, "cpu") / "cpu.stat").read_text().splitlines())
    if "usage_usec" in stat:
        used = int(stat["usage_usec"]) / 1e6
    else:
        used = int((group_of(inside, "cpuacct") / "cpuacct.usage").read_text()) / 1e9
    return used, int(stat["nr_periods"]), int(stat["nr_throttled"])


def test_busy_loops_use_no_more_than_the_share_of_each_period(inside: Inside) -> None:
    before = cpu_used(inside)
    with inside.started("echo busy; (while :; do :; done) & while :; do :; done"):
        deadline = time.monotonic() + 60  # until it was held back, which takes longer where others want the CPUs, too
        while cpu_used(inside)[2] < before[2] + 5 and time.monotonic() < deadline:
            time.sleep(0.2)
        after = cpu_used(inside)
    used, periods, throttled = (now - then for now, then in zip(after, before, strict=True))
    assert throttled >= 5
    assert used <= (periods + 1) * LIMITS.cpus * PERIOD * 1.3


def test_without_a_control_group_it_stays_on_its_cpus(sandboxes: Sandboxes, inside: Inside) -> None:
    if inside.runtime.handle.get("cgroups") != {}:
        pytest.skip("its control group limits the CPUs")
    widen = "import os; os.sched_setaffinity(0, range(os.cpu_count())); print(len(os.sched_getaffinity(0)))"
    assert inside.python("import os; print(len(os.sched_getaffinity(0)))").stdout.strip() == "1"
    assert "PermissionError" in inside.python(widen).stderr
    control = sandboxes.start(frozenset({"system call filter"}), LIMITS)
    if (cpus := control.python("import os; print(os.cpu_count())").stdout.strip()) == "1":
        pytest.skip("no control: this machine has one CPU")
    assert control.python(widen).stdout.strip() == cpus
    sandboxes.destroy(control)


def test_too_much_memory_is_refused_and_told_apart_from_a_crash(sandboxes: Sandboxes, inside: Inside) -> None:
    before = sandboxes.run(inside.engine.usage(inside.runtime)).oom_kills
    crashed = inside.execute("kill -9 $$")
    assert crashed.code == 137
    assert sandboxes.run(inside.engine.usage(inside.runtime)).oom_kills == before
    greedy = inside.python("data = [bytes([n % 255 + 1]) * 2**20 for n in range(1024)]; print(len(data))")
    assert greedy.stdout == ""
    if before is None:
        assert "MemoryError" in greedy.stderr
    else:
        assert greedy.code == 137
        assert sandboxes.run(inside.engine.usage(inside.runtime)).oom_kills > before
    assert inside.get("/status")["runtime"] == inside.runtime.runtime


def test_shared_memory_has_a_size(inside: Inside) -> None:
    done = inside.execute("head -c 300M /dev/zero > /dev/shm/big; stat -c %s /dev/shm/big; rm /dev/shm/big")
    assert int(done.stdout or 0) <= LIMITS.memory
    assert inside.get("/status")["runtime"] == inside.runtime.runtime


def test_one_file_is_no_larger_than_the_disk_may_be(sandboxes: Sandboxes, inside: Inside) -> None:
    if sandboxes.name == "docker":
        pytest.skip("Docker has no limit for the size of a file, and says so")
    inside.execute("head -c 20M /dev/zero > /workspace/big")
    assert inside.execute("stat -c %s /workspace/big; rm /workspace/big").stdout.strip() == str(LIMITS.disk)


def test_open_files_are_bounded_and_the_bound_cannot_be_raised(inside: Inside) -> None:
    source = """
import os, resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
try:
    for _ in range(hard + 1): os.open('/dev/null', 0)
except OSError as exc: print(exc.errno == 24, hard <= 65536)
try: resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1))
except (OSError, ValueError): print('refused')
"""
    assert inside.python(source).stdout.split() == ["True", "True", "refused"]


def test_what_is_not_enforced_is_said_with_the_reason(sandboxes: Sandboxes, inside: Inside) -> None:
    missing = {one.name: one.reason for one in inside.runtime.isolation if not one.enforced}
    assert {"disk", "kernel"} <= missing.keys()
    assert all(missing.values())
    if inside.runtime.handle.get("cgroups") == {}:
        assert {"memory", "pids", "cpus"} <= missing.keys()


def test_the_agent_answers_while_user_code_uses_all_cpus(inside: Inside) -> None:
    with inside.started("for _ in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; echo busy; wait") as response:
        assert b"busy" in response.readline()
        for _ in range(5):
            assert inside.get("/status")["runtime"] == inside.runtime.runtime


def test_the_agent_answers_while_user_code_uses_all_memory(inside: Inside) -> None:
    with inside.started("cat > /tmp/eat.py; while :; do python3 -I -S /tmp/eat.py; done", EATING) as response:
        assert b"busy" in response.readline()
        for _ in range(20):
            assert inside.get("/status")["runtime"] == inside.runtime.runtime


def test_the_agent_answers_during_a_fork_bomb_which_ends_with_the_sandbox(sandboxes: Sandboxes, inside: Inside) -> None:
    with inside.started("echo busy; bomb() { bomb | bomb & }; bomb; sleep 1000") as response:
        assert b"busy" in response.readline()
        for _ in range(20):
            assert inside.get("/status")["runtime"] == inside.runtime.runtime
            pids = sandboxes.run(inside.engine.usage(inside.runtime)).pids
            assert pids is not None
            # Without a control group the limit is that of the user, whose agent and supervisors are before it.
            assert pids <= LIMITS.pids * (1 if inside.runtime.handle.get("cgroups") != {} else 2)
        sandboxes.destroy(inside)
    assert not sandboxes.run(inside.engine.is_alive(inside.runtime))
