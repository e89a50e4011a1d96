"""What the ``status`` messages of a kernel say about its being busy."""

from __future__ import annotations

import json

from jupyter_sandbox.agent import wire
from jupyter_sandbox.agent.busy import Busy


def status(state: str, request: str) -> list[bytes]:
    parts = wire.message("status", {"execution_state": state}, json.dumps({"msg_id": request}).encode())
    return [bytes(part) for part in parts]


def test_a_kernel_is_busy_from_the_first_busy_to_the_last_idle() -> None:
    busy = Busy()
    assert busy.since is None
    assert busy.note(status("busy", "a"))
    began = busy.since
    busy.note(status("busy", "b"))
    assert busy.since == began is not None
    busy.note(status("idle", "a"))
    assert busy.since is not None
    busy.note(status("idle", "b"))
    assert busy.since is None


def test_a_busy_that_is_overtaken_by_its_idle_is_not_believed() -> None:
    busy = Busy()
    for state in ("busy", "idle", "busy"):  # a channel's two, then the first of a subscription that lags
        busy.note(status(state, "a"))
    assert busy.since is None


def test_other_messages_and_odd_ones_say_nothing() -> None:
    busy = Busy()
    for parts in (wire.message("stream", {"text": "status"}), [b'"status"', b"[", b"{}", b"["]):
        assert not busy.note([bytes(part) for part in parts])
    assert busy.since is None


def test_what_is_remembered_is_bounded() -> None:
    busy = Busy()
    for number in range(20_000):
        busy.note(status("idle", f"done {number}"))
        busy.note(status("busy", f"never done {number}"))
    assert len(busy._done) == 1000
    assert len(busy._since) == 10_000
