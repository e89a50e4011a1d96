"""Whether the sandbox ran out of memory, as far as it can see that from inside."""

from __future__ import annotations

_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def oom_kills() -> int:
    """How many processes of this control group the kernel has killed for lack of memory; 0 where it does not say.

    Inside a sandbox the group at the root of the mount is its own. To tell why a process got SIGKILL, compare
    with the number from before.
    """
    for path in _FILES:
        try:
            with open(path, encoding="ascii") as file:
                fields = dict(line.split()[:2] for line in file if len(line.split()) > 1)
        except (OSError, ValueError):
            continue
        return int(fields.get("oom_kill", "0"))
    return 0
