"""What the records keep of a running bubblewrap sandbox: enough to find exactly it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import processes
from ..cgroups import Group
from ..processes import ProcessId

_AGENT = 2


@dataclass(frozen=True, kw_only=True)
class Handle:
    """One start of bwrap.

    ``monitor`` is the bwrap outside, ``init`` the one that is process 1 inside: when it ends, all inside end.
    """

    directory: Path
    socket: Path
    monitor: ProcessId
    init: ProcessId
    group: Group

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Handle:
        """Read what :meth:`to_json` wrote."""
        return cls(
            directory=Path(body["directory"]),
            socket=Path(body["socket"]),
            monitor=ProcessId.from_json(body["monitor"]),
            init=ProcessId.from_json(body["init"]),
            group=Group(dict(body["cgroups"])),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "directory": str(self.directory),
            "socket": str(self.socket),
            "monitor": self.monitor.to_json(),
            "init": self.init.to_json(),
            "cgroups": dict(self.group.paths),
        }

    @property
    def stopped_before(self) -> Path:
        """The file that remembers what was stopped before a freeze; outside of the sandbox."""
        return self.directory / "frozen.json"

    def alive(self) -> bool:
        """Whether the sandbox runs or is frozen. The monitor only reports, so that it may be gone."""
        return self.init.alive()

    def agent(self) -> ProcessId | None:
        """The agent: process 2 inside."""
        for one in processes.tree(self.init.pid) if self.alive() else ():
            status = processes.status(one.pid)
            if one.parent == self.init.pid and status is not None and status.pids[-1] == _AGENT:
                return ProcessId(one.pid, one.started, self.init.boot)
        return None
