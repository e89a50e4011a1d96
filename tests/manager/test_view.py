"""What is told of a sandbox, where its agent lies."""

from __future__ import annotations

import pytest

from jupyter_sandbox.manager import view

ESCAPE = "\x1b]0;title\x07\x1b[2J\r\n\u202e"


@pytest.mark.parametrize("rows", [None, {"a": 1}, [1, None, "x"], [{"id": 1, "name": [ESCAPE]}]])
def test_contexts_of_odd_types_are_none_or_empty(rows: object) -> None:
    assert all(context.id == context.name == "" for context in view._read_contexts(rows))


def test_contexts_are_short_lines_without_commands_for_a_terminal() -> None:
    row = {"id": "k", "name": ESCAPE + "x" * 1000, "language": ESCAPE, "state": "idle"}
    contexts = view._read_contexts([row] * 5000)
    assert len(contexts) == 1000
    assert (contexts[0].id, contexts[0].state) == ("k", "idle")
    for text in (contexts[0].name, contexts[0].language):
        assert len(text) <= 200
        assert not set(text) & set("\x1b\x07\r\n\u202e")
