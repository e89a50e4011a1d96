"""What belongs to which cell, also when that cell has ended: threads that print late, widgets that are moved.

A sandbox names the request that made it speak; here is kept which cell of the notebook that request was. What comes
while no cell runs is shown by the client's thread, under that cell's parent (``set_thread_parent`` of ipykernel).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

from ..client.wire import Message
from .comms import CommBridge
from .relay import MIB, Relay
from .safe import SafeOutput
from .screen import Screen

if TYPE_CHECKING:
    from ..client.channel import KernelChannel

REMEMBERED = 500
"""Requests whose cell is remembered."""

COMM_OUTPUT = 16 * MIB
"""Bytes of output that one move of a widget may show."""

Rules = Callable[[Callable[[str], bool]], SafeOutput]


@dataclass
class _Place:
    """Where the output of one remote request goes."""

    parent: dict[str, Any] | None
    relay: Relay


class Afterwards:
    """The places of output of all requests, and one comm bridge for each context.

    Parameters
    ----------
    rules:
        Makes the rules of rich output, given what tells whether a widget belongs to the sandbox.
    """

    def __init__(self, shell: InteractiveShell, rules: Rules) -> None:
        self._shell = shell
        self._rules = rules
        self._lock = threading.Lock()
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._bridges: dict[tuple[str, str], CommBridge] = {}
        self._running: set[str] = set()

    def attach(self, sandbox_id: str, channel: KernelChannel) -> None:
        """Listen to a new channel. Called on the client's loop."""
        bridge = self._bridge(sandbox_id, channel)
        bridge.use(channel)  # Of a new kernel: closes the widgets of the former one.
        channel.listen(lambda message: self._late(bridge, message))

    def forget(self, sandbox_id: str) -> None:
        """Close the widgets of a sandbox that is gone."""
        with self._lock:
            gone = [key for key in self._bridges if key[0] == sandbox_id]
            bridges = [self._bridges.pop(key) for key in gone]
        for bridge in bridges:
            bridge.close()

    @contextmanager
    def cell(
        self, sandbox_id: str, channel: KernelChannel, limit: int, screen: Screen
    ) -> Iterator[tuple[Relay, Callable[[str], None]]]:
        """The relay of a cell that runs now, and what to call with the id of its request."""
        bridge = self._bridge(sandbox_id, channel)
        bridge.refill()
        relay = Relay(sandbox_id, screen, self._rules(bridge.has), limit, bridge.take)
        parent = self._parent()
        begun: list[str] = []

        def on_request(msg_id: str) -> None:
            begun.append(msg_id)
            self._running.add(msg_id)
            self._remember(msg_id, _Place(parent, relay))

        try:
            yield relay, on_request
        finally:
            self._running.difference_update(begun)
            if count := bridge.left_out():
                screen.note(
                    f"[sandbox {sandbox_id}: {count} messages of widgets were left out: not allowed, or too many]"
                )
            screen.flush()

    def local_parent(self, msg_id: str) -> dict[str, Any] | None:
        """The notebook's request for which the sandbox's request ``msg_id`` was made."""
        with self._lock:
            place = self._places.get(msg_id)
        return place.parent if place is not None else None

    def remember_comm(self, sandbox_id: str, msg_id: str, bridge: CommBridge, parent: dict[str, Any]) -> None:
        """What the sandbox shows because of a moved widget belongs to the request that moved it."""
        relay = Relay(sandbox_id, Screen(self._shell), self._rules(bridge.has), COMM_OUTPUT, bridge.take)
        self._remember(msg_id, _Place(parent, relay))

    def _bridge(self, sandbox_id: str, channel: KernelChannel) -> CommBridge:
        key = (sandbox_id, channel.context)
        with self._lock:
            if key not in self._bridges:
                self._bridges[key] = CommBridge(sandbox_id, self._shell, self)
            return self._bridges[key]

    def _parent(self) -> dict[str, Any] | None:
        get_parent = getattr(self._shell, "get_parent", None)
        return get_parent() if get_parent is not None else None

    def _remember(self, msg_id: str, place: _Place) -> None:
        with self._lock:
            self._places[msg_id] = place
            while len(self._places) > REMEMBERED:
                self._places.popitem(last=False)

    def _late(self, bridge: CommBridge, message: Message) -> None:
        """A message of no running request, or a comm message. On the client's loop."""
        if message.parent_id in self._running and message.msg_type.startswith("comm_"):
            return  # It is also in the queue of the cell, in its place between the displays.
        with self._lock:
            place = self._places.get(message.parent_id or "")
        if message.msg_type == "status" and message.content.get("execution_state") == "restarting":
            bridge.close()
        with _parent_set(self._shell, place.parent if place is not None else None) as is_set:
            if message.msg_type.startswith("comm_"):
                bridge.take(message)
            elif place is not None and is_set and message.channel == "iopub":
                place.relay.show(message)


@contextmanager
def _parent_set(shell: InteractiveShell, parent: dict[str, Any] | None) -> Iterator[bool]:
    """Have what this thread shows belong to ``parent``; yields whether that is possible here."""
    set_thread_parent = getattr(shell, "set_thread_parent", None)
    if parent is None or set_thread_parent is None:
        yield False
        return
    tokens = set_thread_parent(parent)
    try:
        yield True
    finally:
        shell.reset_thread_parent(tokens)  # type: ignore[attr-defined]  # as above: only ipykernel's shell has it
