"""The types that manager and client share: they travel unchanged, and show what they hold."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox import models
from jupyter_sandbox.models import (
    ContextInfo,
    ExecResult,
    Execution,
    ExecutionError,
    ExposedPort,
    FileInfo,
    Protection,
    Result,
    SandboxStatus,
    SandboxSummary,
    Usage,
    from_json,
    to_json,
)

text = st.text(max_size=20)
whole = st.integers(0, 2**50)
zones = st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-720, 840))
times = st.datetimes(timezones=zones, min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1))
states = st.sampled_from(["absent", "starting", "running", "sleeping", "stopped", "destroying", "failed"])
usages = st.builds(Usage, st.none() | st.floats(0, 1e9), *[st.none() | whole] * 4)
shared = {
    Protection: st.builds(Protection, text, st.booleans(), text),
    Usage: usages,
    ContextInfo: st.builds(ContextInfo, text, text, text, text),
    FileInfo: st.builds(FileInfo, text, text, st.sampled_from(["file", "directory"]), whole, times, whole),
    ExecResult: st.builds(ExecResult, text, text, whole, st.booleans(), st.floats(0, 1e9), text),
    ExposedPort: st.builds(ExposedPort, text, text, whole, st.none() | text, st.just("owner"), text),
}
statuses = st.builds(
    SandboxStatus,
    id=text,
    state=states,
    engine=st.none() | text,
    isolation=st.lists(shared[Protection], max_size=3).map(tuple),
    created_at=st.none() | times,
    last_active_at=st.none() | times,
    sleeps_at=st.none() | times,
    keep_alive=st.booleans(),
    usage=usages,
    limits=st.dictionaries(text, st.floats(0, 1e12), max_size=3),
    exposed_ports=st.lists(shared[ExposedPort], max_size=2).map(tuple),
    contexts=st.lists(shared[ContextInfo], max_size=2).map(tuple),
    error=st.none() | text,
)
summaries = st.builds(SandboxSummary, text, states, st.none() | text, st.none() | text, times, times, st.none() | times)


@given(st.one_of(*shared.values(), statuses, summaries))
def test_what_is_sent_is_what_is_read(model):
    body = json.loads(json.dumps(to_json(model)))
    assert from_json(type(model), body) == model


@given(statuses)
def test_fields_of_a_newer_peer_are_left_out(status):
    body = {**to_json(status), "owner": "me", "colour": "green"}
    assert from_json(SandboxStatus, body) == status


@given(times)
def test_times_travel_in_utc(moment):
    sent = to_json(SandboxSummary("a", "running", created_at=moment))["created_at"]
    assert sent.endswith("+00:00")
    assert from_json(SandboxSummary, {"id": "a", "state": "running", "created_at": sent}).created_at == moment


def test_missing_fields_are_an_error_that_names_them():
    with pytest.raises(TypeError, match="state"):
        from_json(SandboxSummary, {"id": "a"})


@pytest.mark.parametrize(("exit_code", "success"), [(0, True), (1, False), (124, False), (-9, False)])
def test_success_is_exit_code_0(exit_code, success):
    assert ExecResult("", "", exit_code, False, 0.0, "x").success is success


def test_a_result_has_its_types_as_properties():
    picture = b"\x89PNG\r\n"
    result = Result(
        {
            "text/plain": ["a", "b"],
            "text/html": "<b>",
            "text/markdown": "*a*",
            "text/latex": "$a$",
            "image/svg+xml": "<svg/>",
            "application/json": {"a": [1]},
            "image/png": base64.encodebytes(picture).decode(),
            "image/jpeg": "not base64é",
        }
    )
    assert (result.text, result.html, result.markdown) == ("ab", "<b>", "*a*")
    assert (result.latex, result.svg, result.json) == ("$a$", "<svg/>", {"a": [1]})
    assert (result.png, result.jpeg) == (picture, None)


@given(
    st.dictionaries(st.sampled_from(["text/plain", "image/png", "text/html"]), st.none() | st.integers() | st.text())
)
def test_a_result_of_wrong_types_breaks_nothing(data):
    result = Result(data)
    assert result.text is None or isinstance(result.text, str)
    assert result.png is None or isinstance(result.png, bytes)
    repr(result)


def test_a_repr_shows_the_content_and_never_a_whole_picture_or_a_token():
    shown = repr(Execution([Result({"text/plain": "2", "image/png": "A" * 100_000})], error=ExecutionError("E", "why")))
    assert "text/plain: '2'" in shown
    assert "image/png: <100000 characters>" in shown
    assert "why" in shown
    assert len(shown) < 400
    port = ExposedPort("http://x", "/x", 8080, None, "owner", "geheim")
    assert "8080" in repr(port)
    assert "geheim" not in repr(port)
    assert repr(Result({"text/plain": "x" * 1000}))[:40] == "Result(text/plain: '" + "x" * 20
    assert repr(Result({"application/json": {"a": 1}})) == "Result(application/json: <dict of 1>)"


def test_a_protection_says_why_it_is_not_enforced():
    assert str(Protection("network", True)) == "network: enforced"
    assert str(Protection("disk", False, "no quota")) == "disk: not enforced (no quota)"


def test_the_text_of_an_execution_is_that_of_its_last_result():
    assert Execution().text is None
    assert Execution([Result({"text/plain": "1"}), Result({"text/plain": "2"})]).text == "2"


def test_times_of_models_are_timezone_aware():
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert from_json(SandboxSummary, to_json(SandboxSummary("a", "running", sleeps_at=moment))).sleeps_at == moment
    assert models.to_json({"a": (moment,)}) == {"a": ["2026-01-01T00:00:00+00:00"]}
