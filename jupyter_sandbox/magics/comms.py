"""Widgets of a sandbox: their comms, passed on between the sandbox's kernel and the notebook's front end.

A local comm stands in for each remote one. It belongs to the sandbox alone: ids that exist here are refused, so that
no sandbox speaks for a widget of the notebook, and its models may name no others than its own.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from IPython.core.interactiveshell import InteractiveShell

from ..client.loop import background_loop
from ..client.wire import Message
from .safe import clean_json
from .widget_state import METADATA, TARGET, WidgetRules, is_widget_message

if TYPE_CHECKING:
    from ..client.channel import KernelChannel

MAX_COMMS = 2000
"""Comms that one kernel may have open here; further ones are left out, and a line says so."""

BUDGET = 64 * 1024 * 1024
"""Bytes that comms may send between two cells or moves of a widget."""

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class Places(Protocol):
    """What a bridge asks about requests; see :class:`~jupyter_sandbox.magics.afterwards.Afterwards`."""

    def local_parent(self, msg_id: str) -> dict[str, Any] | None: ...  # noqa: D102
    def remember_comm(self, sandbox_id: str, msg_id: str, bridge: CommBridge, parent: Any) -> None: ...  # noqa: D102


class CommBridge:
    """The comms of one context in a sandbox. Used by the cell's thread, the client's loop and comm handlers.

    Parameters
    ----------
    sandbox_id:
        For the one line that says that there are too many.
    places:
        Knows which cell a request of the sandbox belongs to.
    """

    def __init__(self, sandbox_id: str, shell: InteractiveShell, places: Places) -> None:
        self._id = sandbox_id
        self._kernel: Any = getattr(shell, "kernel", None)
        self._places = places
        self._channel: KernelChannel | None = None
        self._lock = threading.RLock()
        self._comms: dict[str, Any] = {}
        self._rules: dict[str, WidgetRules] = {}
        self._left = BUDGET
        self.refused = 0

    def use(self, channel: KernelChannel) -> None:
        """Speak over this channel from now on; the widgets of another kernel than before are closed."""
        if self._channel is not None and self._channel.kernel_id != channel.kernel_id:
            self.close()
        self._channel = channel

    def refill(self) -> None:
        """Somebody did something here: the sandbox may speak again."""
        self._left = BUDGET

    def has(self, model_id: str) -> bool:
        """Whether a widget is one of this kernel's."""
        return model_id in self._comms

    def left_out(self) -> int:
        """How many messages of widgets were left out since this was asked last."""
        count, self.refused = self.refused, 0
        return count

    def close(self) -> None:
        """Close all widgets in the front end: their kernel is gone."""
        with self._lock:
            for comm_id in list(self._comms):
                self._forget(comm_id).close()

    # --- from the sandbox --------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Pass a ``comm_*`` message of the sandbox on, if it is one that a widget needs."""
        comm_id, data = message.content.get("comm_id"), message.content.get("data")
        if self._kernel is None or not isinstance(comm_id, str) or not _ID.fullmatch(comm_id):
            return
        self._left -= max(message.size, 1)
        with self._lock:
            if self._left < 0:
                self.refused += 1
            elif message.msg_type == "comm_open":
                self._open(comm_id, message, data)
            elif message.msg_type == "comm_msg" and comm_id in self._comms:
                self._update(comm_id, message, data)
            elif message.msg_type == "comm_close" and comm_id in self._comms:
                self._forget(comm_id).close()

    def _open(self, comm_id: str, message: Message, data: Any) -> None:
        import comm

        taken = comm.get_comm_manager().comms
        rules = WidgetRules.of(data, self.has)
        if rules is None or message.content.get("target_name") != TARGET or comm_id in taken:
            self.refused += 1
            return
        if len(self._comms) >= MAX_COMMS or (state := self._state(rules, data)) is None:
            self.refused += 1
            return
        self._rules[comm_id] = rules
        opened = comm.create_comm(
            target_name=TARGET, comm_id=comm_id, data=state, metadata=METADATA, buffers=_buffers(message)
        )
        opened.on_msg(self._from_front_end)
        opened.on_close(self._closed_by_front_end)
        self._comms[comm_id] = opened

    def _update(self, comm_id: str, message: Message, data: Any) -> None:
        state = self._state(self._rules[comm_id], data)
        if state is None:
            self.refused += 1
        else:
            self._comms[comm_id].send(data=state, buffers=_buffers(message))

    def _state(self, rules: WidgetRules, data: Any) -> dict[str, Any] | None:
        safe = rules.message(data)
        if safe is None:
            return None
        state = safe.get("state")
        if isinstance(state, dict) and isinstance(msg_id := state.get("msg_id"), str) and msg_id:
            # An Output widget takes what belongs to a request: the notebook's, where this is the sandbox's.
            parent = self._places.local_parent(msg_id) or {}
            state["msg_id"] = parent.get("header", {}).get("msg_id", "")
        cleaned: dict[str, Any] = clean_json(safe)
        return cleaned

    def _forget(self, comm_id: str) -> Any:
        del self._rules[comm_id]
        return self._comms.pop(comm_id)

    # --- from the front end ------------------------------------------------------------------------

    def _from_front_end(self, message: Mapping[str, Any]) -> None:
        """A widget was moved. Runs where ipykernel handles comms: its main thread, or a subshell's."""
        content = message.get("content", {})
        data = content.get("data")
        self.refill()
        if is_widget_message(data):
            self._send("comm_msg", {"comm_id": content.get("comm_id"), "data": data}, message.get("buffers") or ())

    def _closed_by_front_end(self, message: Mapping[str, Any]) -> None:
        comm_id = message.get("content", {}).get("comm_id")
        with self._lock:
            if comm_id in self._comms:
                self._forget(comm_id)
                self._send("comm_close", {"comm_id": comm_id, "data": {}}, ())

    def _send(self, msg_type: str, content: dict[str, Any], buffers: Any) -> None:
        channel = self._channel
        if channel is None or channel.closed:
            return
        parent = self._kernel.get_parent() if msg_type == "comm_msg" else None
        sending = self._sent(channel, msg_type, content, [bytes(part) for part in buffers], parent)
        asyncio.run_coroutine_threadsafe(sending, background_loop())

    async def _sent(
        self, channel: KernelChannel, msg_type: str, content: dict[str, Any], buffers: list[bytes], parent: Any
    ) -> None:
        msg_id = await channel.send("shell", msg_type, content, buffers=buffers)
        if parent:
            self._places.remember_comm(self._id, msg_id, self, parent)


def _buffers(message: Message) -> list[bytes]:
    return [bytes(buffer) for buffer in message.buffers]
