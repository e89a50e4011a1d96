"""The configuration of a sandbox's container, as the daemon's API takes it (design section 11)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker

from ...options import ResolvedLimits
from ..base import StartSpec

LABEL_INSTALLATION = "org.jupyter.sandbox.installation"
LABEL_LIFETIME = "org.jupyter.sandbox.lifetime"

USER = "1000:1000"
HOME = "/home/sandbox"
WORKSPACE = "/workspace"
DOOR = "/run/sandbox"
"""Where the hand-off directory is mounted."""

_NOFILE = 4096
"""Open files per process. Not above what a daemon without CAP_SYS_RESOURCE may give."""

_SHM_SHARE = 2
"""Shared memory may hold memory / this; it counts as memory of the sandbox."""


def name(lifetime: str) -> str:
    """The name of the container and of the volume of a lifetime."""
    return f"jsb-{lifetime}"


def labels(installation: str, lifetime: str) -> dict[str, str]:
    """The labels of every engine object: whose records it belongs to, and which lifetime. Nothing else."""
    return {LABEL_INSTALLATION: installation, LABEL_LIFETIME: lifetime}


def configuration(spec: StartSpec, image: str, door: Path, cpus: int, network: str | None = None) -> dict[str, Any]:
    """All of a container: the body of ``POST /containers/create``.

    Whatever the image says about user, entrypoint, health check, stop signal and working directory is
    overridden. The environment holds constants only: that of the sandbox travels in the hand-off. Without the name of
    a ``network`` there is none but loopback.
    """
    command = ["-I", f"{DOOR}/agent.pyz", "--handoff", f"{DOOR}/handoff.sock"]
    mounts = [
        {"Type": "bind", "Source": str(door), "Target": DOOR, "ReadOnly": True},
        {"Type": "volume", "Source": name(spec.lifetime), "Target": WORKSPACE},
    ]
    return {
        **process(image, command),
        "Labels": labels(spec.installation, spec.lifetime),
        "HostConfig": {
            **host_config(),
            **limited(spec.limits, cpus),
            "Mounts": mounts,
            **({} if network is None else {"NetworkMode": network}),
        },
    }


def process(image: str, arguments: list[str]) -> dict[str, Any]:
    """``python3`` with ``arguments`` as the image's ordinary user, and nothing that the image wants started."""
    return {
        "Image": image,
        "Hostname": "sandbox",
        "User": USER,
        "WorkingDir": WORKSPACE,
        "Entrypoint": ["python3"],
        "Cmd": arguments,
        "Env": [f"HOME={HOME}", "USER=sandbox", "LOGNAME=sandbox", "LANG=C.UTF-8", "TZ=UTC"],
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGTERM",
        "Tty": False,
        "OpenStdin": False,
    }


def host_config() -> dict[str, Any]:
    """The isolation that every container of ours has."""
    return {
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "Init": True,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "RestartPolicy": {"Name": "no"},
        "PublishAllPorts": False,
        # What an agent says before it is connected explains a failed start; bounded, it can fill no disk.
        "LogConfig": {"Type": "local", "Config": {"max-size": "256k", "max-file": "1", "compress": "false"}},
        "Ulimits": [
            {"Name": "nofile", "Soft": _NOFILE, "Hard": _NOFILE},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
    }


def limited(limits: ResolvedLimits, cpus: int) -> dict[str, Any]:
    """The limits of a new container; ``cpus`` of the machine, because the daemon refuses more."""
    return {**changeable(limits, cpus), "ShmSize": limits.memory // _SHM_SHARE}


def changeable(limits: ResolvedLimits, cpus: int) -> dict[str, int]:
    """The limits that also ``docker update`` takes. Memory and swap together are ``memory``: no swap on top."""
    return {
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "NanoCpus": int(min(limits.cpus, cpus) * 1e9),
        "PidsLimit": limits.pids,
    }


def has_limits(found: Mapping[str, Any], wanted: Mapping[str, int]) -> bool:
    """Whether the inspected container ``found`` has the limits ``wanted``."""
    host = found.get("HostConfig", {})
    return all(host.get(key) == value for key, value in wanted.items())


def create(client: docker.APIClient, config: Mapping[str, Any], name: str | None = None) -> str:
    """Create a container from the API's own form of its configuration; return its id."""
    created = client.create_container_from_config(dict(config), name)  # type: ignore[no-untyped-call]
    return str(created["Id"])


def update(client: docker.APIClient, name: str, limits: Mapping[str, int]) -> None:
    """``docker update``. The SDK's own method knows neither ``NanoCpus`` nor ``PidsLimit``."""
    api: Any = client
    answer = api._post_json(api._url("/containers/{0}/update", name), data=dict(limits))
    api._raise_for_status(answer)


def door_of(found: Mapping[str, Any]) -> Path | None:
    """The host's path of the hand-off directory of the inspected container ``found``."""
    for mount in found.get("HostConfig", {}).get("Mounts") or ():
        if mount.get("Target") == DOOR:
            return Path(mount["Source"])
    return None
