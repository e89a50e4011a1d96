"""The relay against messages that no honest kernel sends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.client.wire import Message
from jupyter_sandbox.magics.relay import DISPLAY_LIMIT, MIB, STREAM_PIECE, Relay
from jupyter_sandbox.magics.safe import SafeOutput


class Recorder:
    """Output as a list, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def stream(self, name: str, text: str) -> None:
        self.seen.append((name, text))

    def result(self, data: Any, metadata: Any) -> None:
        self.seen.append(("result", data, metadata))

    def display(self, data: Any, metadata: Any, display_id: str | None, *, update: bool = False) -> None:
        self.seen.append(("update" if update else "display", data, metadata, display_id))

    def clear(self, *, wait: bool) -> None:
        self.seen.append(("clear", wait))

    def error(self, exc: BaseException) -> None:
        self.seen.append(("error", type(exc).__name__, str(exc)))

    def flush(self) -> None:
        pass

    def note(self, text: str) -> None:
        self.seen.append(("note", text))


def message(msg_type: str, content: Any, *, channel: str = "iopub", size: int = 100, **more: Any) -> Message:
    header = {"msg_id": "m", "msg_type": msg_type, **more}
    return Message(channel, header, {"msg_id": "forged"}, {"huge": "x" * 1000}, content, (), size)


def relayed(*messages: Message, limit: int = 256 * MIB) -> tuple[Recorder, Relay]:
    recorder = Recorder()
    relay = Relay("user-1", recorder, SafeOutput(), limit)
    for one in messages:
        relay.show(one)
    return recorder, relay


def test_order_is_kept_over_all_kinds_of_output() -> None:
    recorder, _ = relayed(
        message("stream", {"name": "stdout", "text": "a"}),
        message("display_data", {"data": {"text/plain": "d"}, "metadata": {}}),
        message("stream", {"name": "stderr", "text": "b"}),
        message("clear_output", {"wait": True}),
        message("execute_result", {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 99}),
    )
    assert [one[0] for one in recorder.seen] == ["stdout", "display", "stderr", "clear", "result"]


def test_display_ids_live_in_the_name_space_of_the_sandbox() -> None:
    bundle = {"data": {"text/plain": "x"}, "metadata": {}, "transient": {"display_id": "local", "evil": 1}}
    recorder, _ = relayed(message("display_data", bundle), message("update_display_data", bundle))
    assert [one[0] for one in recorder.seen] == ["display", "update"]
    assert {one[3] for one in recorder.seen} == {"sandbox/user-1/local"}


def test_an_update_without_an_id_is_left_out() -> None:
    assert not relayed(message("update_display_data", {"data": {"text/plain": "x"}, "metadata": {}}))[0].seen


def test_the_payload_of_the_reply_is_never_read() -> None:
    payload = [{"source": "set_next_input", "text": "import os; os.system('x')", "replace": True}]
    recorder, relay = relayed(message("execute_reply", {"status": "ok", "payload": payload}, channel="shell"))
    assert not recorder.seen
    assert relay.outcome() is None


@pytest.mark.parametrize(
    "forged",
    [
        message("stream", {"name": "stdout", "text": 5}),
        message("stream", {"name": "evil", "text": "x"}),
        message("stream", {}),
        message("stream", {"name": "stdout", "text": "x"}, channel="shell"),
        message("display_data", {"data": [], "metadata": {}}),
        message("display_data", {"data": {"text/plain": "x"}, "metadata": 5}),
        message("execute_input", {"code": "x"}),
        message("execute_request", {"code": "x"}),
        message("shutdown_reply", {"restart": False}),
        message("no_such_type", {"a": 1}),
        message("execute_reply", {"status": "ok"}, channel="iopub"),
    ],
)
def test_messages_of_the_wrong_kind_show_nothing(forged: Message) -> None:
    recorder, relay = relayed(forged)
    assert not recorder.seen
    assert relay.outcome() is None


@pytest.mark.parametrize("content", [{}, {"ename": 5, "evalue": [], "traceback": "x"}, {"traceback": [1, "a"]}])
def test_an_error_of_the_wrong_form_still_ends_the_cell(content: dict[str, Any]) -> None:
    _, relay = relayed(message("error", content))
    failed = relay.outcome()
    assert failed is not None
    assert failed._render_traceback_()


def test_the_error_has_the_remote_name_text_and_traceback() -> None:
    content = {"ename": "ValueError", "evalue": "oh", "traceback": ["line 1", "line 2"]}
    _, relay = relayed(message("error", content))
    failed = relay.outcome()
    assert (type(failed).__name__, str(failed), failed._render_traceback_()) == (
        "ValueError",
        "oh",
        content["traceback"],
    )


def test_an_error_name_that_is_no_name_is_reduced_to_one() -> None:
    _, relay = relayed(message("error", {"ename": "<b>\0 evil()", "evalue": "", "traceback": []}))
    assert type(relay.outcome()).__name__ == "bevil"


def test_an_endless_traceback_is_cut() -> None:
    _, relay = relayed(message("error", {"ename": "E", "evalue": "", "traceback": ["x" * 1000] * 5000}))
    assert sum(map(len, relay.outcome()._render_traceback_())) < 2 * MIB


def test_an_error_after_which_the_code_went_on_is_shown_in_its_place() -> None:
    recorder, relay = relayed(
        message("error", {"ename": "E", "evalue": "x", "traceback": []}),
        message("stream", {"name": "stdout", "text": "on"}),
        message("execute_reply", {"status": "ok"}, channel="shell"),
    )
    assert [one[0] for one in recorder.seen] == ["error", "stdout"]
    assert relay.outcome() is None


def test_a_failing_reply_without_an_error_message_ends_the_cell() -> None:
    reply = {"status": "error", "ename": "E", "evalue": "x", "traceback": ["t"]}
    _, relay = relayed(message("execute_reply", reply, channel="shell"))
    assert str(relay.outcome()) == "x"


def test_a_stream_is_cut_into_pieces() -> None:
    recorder, _ = relayed(message("stream", {"name": "stdout", "text": "x" * (5 * STREAM_PIECE + 7)}))
    assert [len(text) for _, text in recorder.seen] == [STREAM_PIECE] * 5 + [7]


def test_a_display_over_the_limit_becomes_a_line() -> None:
    bundle = {"data": {"text/plain": "x"}, "metadata": {}}
    recorder, _ = relayed(message("display_data", bundle, size=DISPLAY_LIMIT + 1))
    assert recorder.seen == [("note", "[sandbox user-1: a display of 64 MiB is left out; the limit is 64 MiB]")]


def test_the_output_of_a_cell_is_cut_at_the_limit_and_says_so_once() -> None:
    streams = [message("stream", {"name": "stdout", "text": "x" * MIB})] * 5
    recorder, _ = relayed(*streams, limit=2 * MIB)
    assert [one[0] for one in recorder.seen] == ["stdout", "stdout", "note"]
    assert "2 MiB" in recorder.seen[-1][1]


def test_cleared_output_does_not_count() -> None:
    steps = [message("stream", {"name": "stdout", "text": "x" * MIB}), message("clear_output", {"wait": False})] * 5
    recorder, _ = relayed(*steps, limit=2 * MIB)
    assert "note" not in [one[0] for one in recorder.seen]


def test_halves_of_surrogate_pairs_are_replaced() -> None:
    recorder, _ = relayed(message("stream", {"name": "stdout", "text": "a\ud83db"}))
    recorder.seen[0][1].encode()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
FIELDS = ["name", "text", "data", "metadata", "transient", "wait", "ename", "evalue", "traceback", "status", "comm_id"]


@given(
    st.sampled_from(
        ["stream", "display_data", "update_display_data", "execute_result", "clear_output", "error", "execute_reply"]
    ),
    st.dictionaries(st.sampled_from(FIELDS), anything),
    st.sampled_from(["iopub", "shell"]),
)
def test_no_content_breaks_the_relay(msg_type: str, content: dict[str, Any], channel: str) -> None:
    relayed(message(msg_type, content, channel=channel))
