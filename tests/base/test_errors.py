"""Errors: one table, one family, the same on both sides of a connection."""

import ast
import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox import errors
from jupyter_sandbox.errors import CODES, SandboxError, error, error_from_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_class_a_status_and_a_sentence(code):
    row = CODES[code]
    problem = error(code)
    assert type(problem) is row.cls
    assert issubclass(row.cls, SandboxError)
    assert 400 <= problem.http_status < 600
    assert problem.message.endswith(".")
    assert str(problem) == f"{row.message} {row.remedy}".strip()
    assert problem.retry_after == (1 if row.status == 503 else None)


@pytest.mark.parametrize(
    ("code", "builtin"),
    [
        ("INVALID_OPTION", ValueError),
        ("SANDBOX_NOT_FOUND", LookupError),
        ("FILE_PERMISSION", PermissionError),
        ("EXECUTION_TIMEOUT", TimeoutError),
    ],
)
def test_errors_are_what_python_programs_expect(code, builtin):
    assert isinstance(error(code), builtin)


def test_three_kinds_of_no_have_their_statuses():
    statuses = {row.cls: {row.status} for row in CODES.values() if row.cls in (errors.Unavailable, errors.NotFound)}
    assert statuses == {errors.Unavailable: {503}, errors.NotFound: {404}}
    assert {row.status for row in CODES.values() if row.cls is errors.Conflict} == {409}
    assert {row.status for row in CODES.values() if row.cls is errors.Denied} <= {403, 413, 429}


@given(st.sampled_from(sorted(CODES)), st.text(min_size=1), st.text(), st.dictionaries(st.text(), json_values))
def test_an_error_survives_its_travel(code, message, remedy, details):
    sent = CODES[code].cls(code, message, remedy=remedy, details=details)
    read = error_from_json(json.loads(json.dumps(sent.to_json())))
    assert type(read) is type(sent)
    shown = (errors.printable(message)[:4000], errors.printable(remedy)[:4000])
    assert (read.code, read.message, read.remedy) == (code, *shown)
    expected = {key: value for key, value in details.items() if key not in ("code", "message", "remedy")}
    assert json.dumps(read.details) == json.dumps(expected)


@given(json_values | st.fixed_dictionaries({"error": json_values}))
def test_anything_that_arrives_as_an_error_becomes_one_of_ours(payload):
    problem = error_from_json(payload)
    assert problem.code in CODES
    assert problem.message


@given(st.dictionaries(st.sampled_from(["code", "message", "remedy", "details", "x"]), json_values))
def test_fields_of_wrong_types_are_left_out(body):
    problem = error_from_json({"error": body})
    assert isinstance(problem.message, str)
    assert isinstance(problem.remedy, str)
    assert problem.code == (body["code"] if body.get("code") in list(CODES) else "INTERNAL")


def test_an_unknown_code_is_kept_readable():
    problem = error_from_json({"error": {"code": "FROM_THE_FUTURE", "message": "Not today.", "remedy": "Tomorrow."}})
    assert problem.code == "INTERNAL"
    assert str(problem) == "Not today. Tomorrow."


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda problem: pickle.loads(pickle.dumps(problem))])
def test_an_error_can_be_copied_and_pickled(duplicate):
    problem = duplicate(error("LIMIT_REACHED", "Full.", limit=3))
    assert (type(problem), problem.code, problem.message) == (errors.Denied, "LIMIT_REACHED", "Full.")
    assert problem.details == {"limit": 3}


def test_the_file_is_python_3_9_with_its_standard_library_only():
    tree = ast.parse(Path(errors.__file__).read_text(), feature_version=(3, 9))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in imports} == {"__future__", "typing"}
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


def test_no_error_commands_a_terminal() -> None:
    escape = "\x1b]52;c;aGk=\x07\x1b[2J\r\x9b1m\u202ex\nnext\tline"
    sent = {"error": {"code": "OUTPUT_INVALID", "message": escape, "remedy": escape, "details": {}}}
    for problem in (errors.error_from_json(sent), errors.error("START_FAILED", escape, remedy=escape)):
        assert not set(str(problem)) & set("\x1b\x07\r\x9b\u202e")
        assert problem.message.endswith("x\nnext\tline")
