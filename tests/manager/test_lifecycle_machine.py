"""The manager against its model: seconds by default, minutes by ``make soak``, and nothing may grow meanwhile."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from lifecycle_machine import PREFIX, Lifecycle

MINUTES = float(os.environ.get("JUPYTER_SANDBOX_SOAK_MINUTES", "0"))
"""How long to go on; 0 is one short round."""
FIRST_SEED = int(os.environ.get("JUPYTER_SANDBOX_SOAK_SEED", "0"))
GROWTH = 1.25
"""What the memory of a process may be at the end, as a multiple of what it was when all was warm."""
WARM = 3


def measured() -> dict[str, int]:
    """What must not grow."""
    gc.collect()
    children = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "fds": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "processes": len(children),
        "mounts": Path("/proc/self/mountinfo").read_text().count(PREFIX),
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def one_round(number: int, examples: int) -> None:
    rules = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    run_state_machine_as_test(seed(number)(Lifecycle), settings=rules)


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 170)
def test_any_operations_and_faults_leave_the_manager_as_its_model_says() -> None:
    if MINUTES == 0:
        one_round(FIRST_SEED, examples=25)
        return
    first = FIRST_SEED or random.randrange(2**32)
    end, rounds, warm = time.monotonic() + MINUTES * 60, 0, measured()
    print(f"\nThe manager's state machine, {MINUTES:g} minutes from seed {first}:", flush=True)
    while time.monotonic() < end or rounds <= WARM:
        one_round(first + rounds, examples=50)
        rounds += 1
        if rounds == WARM:
            warm = measured()
    now, steps = measured(), sum(Lifecycle.counts.values())
    print(f"{rounds} rounds, {steps} operations; warm {warm}, at the end {now}")
    for name, count in sorted(Lifecycle.counts.items()):
        print(f"  {count:8} {name}")
    assert now.pop("memory") <= warm.pop("memory") * GROWTH
    assert now == warm
