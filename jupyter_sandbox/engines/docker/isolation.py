"""What this daemon on this machine enforces for a sandbox, and what it does not, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models import Protection


def isolation(info: Mapping[str, Any]) -> tuple[Protection, ...]:
    """The protections of a sandbox, from what ``docker info`` says."""
    return (
        Protection("filesystem", True),
        Protection("processes", True),
        Protection("network", True),
        Protection("privileges", True),
        _seccomp(info),
        Protection("kernel", False, "containers share the kernel of this machine"),
        _controlled(info, "memory", "MemoryLimit", "memory control group"),
        _controlled(info, "swap", "SwapLimit", "swap accounting"),
        _controlled(info, "cpus", "CpuCfsQuota", "CPU quota"),
        _controlled(info, "pids", "PidsLimit", "pids control group"),
        Protection("disk", False, "Docker limits the size of no volume"),
    )


def _seccomp(info: Mapping[str, Any]) -> Protection:
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    entry = next((option for option in options if option.startswith("name=seccomp")), None)
    if entry is None or "profile=unconfined" in entry:
        return Protection("system calls", False, "the daemon has no seccomp profile")
    return Protection("system calls", True)


def _controlled(info: Mapping[str, Any], name: str, key: str, what: str) -> Protection:
    if info.get(key):
        return Protection(name, True)
    return Protection(name, False, f"this machine's kernel or daemon has no {what}")
