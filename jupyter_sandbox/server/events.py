"""Changes of sandboxes as events of the Jupyter server: hints to ask again, without anything secret in them.

Every logged-in user may listen to a server's events, so nothing is in them that only some of them may know.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from jupyter_events import EventLogger

from ..models import State

SCHEMA_ID = "https://events.jupyter.org/jupyter_sandbox/sandbox_changed/v1"
_SCHEMA = Path(__file__).parent / "event_schemas" / "sandbox_changed" / "v1.yaml"


class ChangedEvents:
    """Emits one event for each change.

    Parameters
    ----------
    with_ids:
        Whether an event may say which sandbox it is.
    """

    def __init__(self, logger: EventLogger, *, with_ids: bool) -> None:
        self._logger = logger
        self._with_ids = with_ids
        if SCHEMA_ID not in logger.schemas:
            logger.register_event_schema(_SCHEMA)

    def emit(self, event: Mapping[str, Any]) -> None:
        """Tell of what the manager said; what it says beyond the schema is left out."""
        if event.get("event") != "changed" or event.get("state") not in get_args(State):
            return
        data = {"state": event["state"], "generation": int(event.get("generation", 0))}
        if self._with_ids:
            data["id"] = str(event.get("id", ""))
        self._logger.emit(schema_id=SCHEMA_ID, data=data)
