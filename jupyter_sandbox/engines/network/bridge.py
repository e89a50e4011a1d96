"""A bridge whose ports cannot see each other, whatever the packet filter does with what stays on it."""

from __future__ import annotations

from pathlib import Path

from .rules import unavailable

_INTERFACES = Path("/sys/class/net")


def isolate_ports(bridge: str) -> None:
    """Let the ports of ``bridge`` reach this machine only, not each other. Idempotent.

    Raises
    ------
    SandboxError
        ``NETWORK_UNAVAILABLE`` if the bridge is not in this network namespace, or the kernel does not do it.
    """
    ports = _INTERFACES / bridge / "brif"
    if not ports.is_dir():
        raise unavailable(
            f"The bridge {bridge} is not to be seen: Docker runs in another network namespace than the manager.",
            "Use `network='none'`, or run the manager beside the Docker daemon.",
        )
    for port in ports.iterdir():
        _isolate(port / "isolated")


def _isolate(switch: Path) -> None:
    try:
        if switch.read_text().strip() != "1":
            switch.write_text("1")
    except FileNotFoundError:
        if switch.parent.exists():  # else the sandbox ended meanwhile
            raise unavailable("This kernel cannot keep the ports of a bridge apart (Linux 4.18 can).") from None
    except OSError as exc:
        raise unavailable(f"The sandboxes cannot be kept apart on their bridge: {exc.strerror}.") from exc
