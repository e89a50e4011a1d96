"""What the records keep of a running bubblewrap sandbox: enough to find exactly it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cgroups import Group
from ..processes import ProcessId


@dataclass(frozen=True, kw_only=True)
class Handle:
    """One start of bwrap.

    ``monitor`` is the bwrap outside; ``init`` is the agent, process 1 inside: when it ends, all inside end.
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
