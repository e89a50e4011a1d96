"""What is enforced for a bubblewrap sandbox on this machine, and what is not, with the reason."""

from __future__ import annotations

import os

from ...models import Protection
from ...options import ResolvedLimits
from ..cgroups import Group
from .cpus import share

_NO_CGROUP = "no writable control group"


def isolation(group: Group, limits: ResolvedLimits) -> tuple[Protection, ...]:
    """The protections of a sandbox in ``group``."""
    return (
        Protection("filesystem", True),
        Protection("processes", True),
        Protection("network", True),
        Protection("privileges", True),
        Protection("system calls", True),
        Protection("kernel", False, "sandboxes share the kernel of this machine"),
        _memory(group),
        _swap(group),
        _cpus(group, limits),
        Protection("pids", True)
        if group.has("pids")
        else Protection("pids", False, f"as a limit of the sandbox's user only: {_NO_CGROUP}"),
        Protection("disk", False, "nothing limits the size of a directory"),
    )


def _memory(group: Group) -> Protection:
    if group.has("memory"):
        return Protection("memory", True)
    return Protection("memory", False, f"per process only: {_NO_CGROUP}")


def _swap(group: Group) -> Protection:
    if group.has("memory") and group.limits_swap():
        return Protection("swap", True)
    return Protection("swap", False, "no swap accounting" if group.has("memory") else _NO_CGROUP)


def _cpus(group: Group, limits: ResolvedLimits) -> Protection:
    if group.has("cpu"):
        return Protection("cpus", True)
    given = len(share(limits.cpus))
    if given <= limits.cpus or given == len(os.sched_getaffinity(0)) <= limits.cpus:
        return Protection("cpus", True)
    return Protection("cpus", False, f"rounded up to {given} by affinity: {_NO_CGROUP}")
