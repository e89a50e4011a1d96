"""What this daemon on this machine enforces for a sandbox, and what it does not, with the reason."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any

from ...models import Protection

_REFUSES_VSOCK = 23
"""The first version of Docker whose default seccomp profile refuses virtual sockets."""


def isolation(info: Mapping[str, Any]) -> tuple[Protection, ...]:
    """The protections of a sandbox, from what ``docker info`` says."""
    return (
        Protection("filesystem", True),
        Protection("processes", True),
        _network(info),
        Protection("privileges", True),
        _seccomp(info),
        Protection("kernel", False, "containers share the kernel of this machine"),
        _controlled(info, "memory", "MemoryLimit", "memory control group"),
        _controlled(info, "swap", "SwapLimit", "swap accounting"),
        _controlled(info, "cpus", "CpuCfsQuota", "CPU quota"),
        _controlled(info, "pids", "PidsLimit", "pids control group"),
        Protection("disk", False, "Docker limits the size of no volume"),
    )


def _network(info: Mapping[str, Any]) -> Protection:
    """Virtual sockets belong to no network namespace; only a seccomp profile keeps a container from them."""
    version = re.match(r"\d{1,4}", str(info.get("ServerVersion")))
    if version is None or int(version[0]) >= _REFUSES_VSOCK or not _has_vsock():
        return Protection("network", True)
    reason = f"Docker before {_REFUSES_VSOCK} lets containers reach the host of this virtual machine by AF_VSOCK"
    return Protection("network", False, reason)


def _has_vsock() -> bool:
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


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
