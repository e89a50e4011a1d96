"""Which requests a kernel works on, as its ``status`` messages tell."""

from __future__ import annotations

from typing import Dict, List, Optional

from . import wire
from .web import now

_MAX_BUSY = 10_000
_MAX_DONE = 1000
_STATUS_BYTES = 200


class Busy:
    """The requests between their busy and their idle: control requests overlap with running code.

    The agent's own subscription and those of all channels feed it, so that a client that has seen the idle does not
    find the kernel busy afterwards. They run ahead of each other: a busy that comes after the idle of its request is
    old, and is not believed.
    """

    def __init__(self) -> None:
        self._since: Dict[str, str] = {}
        self._done: Dict[str, None] = {}

    @property
    def since(self) -> Optional[str]:
        """When the oldest of them began; None if there is none."""
        return next(iter(self._since.values()), None)

    def note(self, parts: List[bytes]) -> bool:
        """Look at an iopub message; whether it says that a request has begun."""
        if b'"status"' not in parts[0] or len(parts[3]) > _STATUS_BYTES:
            return False
        state = wire.content_of(parts).get("execution_state")
        request = str(wire.header_of(parts[1:]).get("msg_id"))
        if state == "idle":
            self._end(request)
        elif state == "busy" and request not in self._done and len(self._since) < _MAX_BUSY:
            self._since.setdefault(request, now())
            return True
        return False

    def _end(self, request: str) -> None:
        self._since.pop(request, None)
        self._done[request] = None
        if len(self._done) > _MAX_DONE:
            del self._done[next(iter(self._done))]
