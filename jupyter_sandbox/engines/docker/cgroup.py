"""What a container uses, read from the kernel's own files: works while it is frozen, and asks no daemon."""

from __future__ import annotations

from ...models import Usage
from .. import cgroups


def usage(pid: int) -> Usage | None:
    """The use of the control groups that the process ``pid`` is in; None where they cannot be seen from here."""
    own = cgroups.memberships(pid)
    paths: dict[str, str] = {}
    for mount in sorted(cgroups.mounts(), key=lambda one: one.v2):
        directory = mount.own(own)
        if directory is not None and directory.is_dir():
            for controller in cgroups.CONTROLLERS if mount.v2 else mount.controllers:
                paths.setdefault(controller, str(directory))
    return cgroups.Group(paths).usage() if "memory" in paths else None
