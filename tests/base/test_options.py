"""Options (design section 6): durations, ranges, defaults, precedence, and what is kept."""

import json
import math
import warnings
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.errors import InvalidInput, SandboxWarning
from jupyter_sandbox.options import (
    GIB,
    MAX_DURATION,
    MIB,
    TIMEOUTS,
    ContainerTimeouts,
    Limits,
    ResolvedOptions,
    SandboxOptions,
    from_environment,
    merge,
    parse_duration,
    resolve,
)

HUGE = pytest.param(10**5000, id="huge")
"""More digits than Python turns into text."""

UNITS = {"s": 1, "m": 60, "h": 3600}

timeouts = st.fixed_dictionaries(
    {}, optional={name: st.integers(spec.low, spec.high) for name, spec in TIMEOUTS.items()}
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "cpus": st.floats(0.05, 1024) | st.integers(1, 1024),
        "memory": st.integers(64 * MIB, GIB),
        "pids": st.integers(16, 1000),
        "disk": st.integers(MIB, GIB),
    },
)
durations = st.floats(0.001, MAX_DURATION) | st.integers(1, int(MAX_DURATION)) | st.sampled_from(["30s", "5m", "1h"])
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
given_options = st.fixed_dictionaries(
    {},
    optional={
        "sleep_after": durations,
        "stop_after": durations,
        "max_busy": durations,
        "keep_alive": st.booleans(),
        "base_url": st.sampled_from(["http://a.localhost:8888", "https://b.example/x/"]),
        "container_timeouts": timeouts,
        "limits": limits,
        "env": st.dictionaries(names, values, max_size=3),
        "labels": st.dictionaries(names, values, max_size=3),
        "engine": st.sampled_from(["auto", "docker", "bubblewrap"]),
        "image": st.sampled_from(["python:3.12", "a.example:5000/b@sha256:" + "0" * 64]),
        "network": st.sampled_from(["none", "internet"]),
    },
)
options = given_options.map(lambda given: SandboxOptions(**given))


# --- durations -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**7), st.sampled_from("smh"))
def test_a_duration_is_a_number_and_a_unit(number, unit):
    seconds = number * UNITS[unit]
    if seconds <= MAX_DURATION:
        assert parse_duration(f"{number}{unit}") == seconds


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_a_number_of_seconds_is_finite_and_above_0(number):
    if math.isfinite(number) and 0 < number <= MAX_DURATION:
        assert parse_duration(number) == number
    else:
        with pytest.raises(InvalidInput) as caught:
            parse_duration(number, "sleep_after")
        assert caught.value.code == "INVALID_DURATION"
        assert f"sleep_after={number}"[:30] in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "5",
            "m",
            "-5m",
            "+5m",
            "5.5m",
            "5 m",
            " 5m",
            "5m ",
            "5m\n",
            "5M",
            "5d",
            "1h30m",
            "0s",
            "\u0665m",
            "5ms",
            "1e3s",
        ),
        *(None, True, [], {}, b"5m", "9" * 30 + "h", 10**400, HUGE, object()),
    ],
)
def test_everything_else_is_refused(value):
    with pytest.raises(InvalidInput) as caught:
        parse_duration(value)
    assert caught.value.code == "INVALID_DURATION"
    assert len(str(caught.value)) < 250


@given(st.text(max_size=30))
def test_a_text_is_a_duration_exactly_if_it_matches_the_rule(text):
    import re

    matches = re.fullmatch(r"[0-9]{1,15}[smh]", text, re.ASCII)
    if matches and 0 < int(text[:-1]) * UNITS[text[-1]] <= MAX_DURATION:
        assert parse_duration(text) > 0
    else:
        with pytest.raises(InvalidInput):
            parse_duration(text)


# --- ranges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TIMEOUTS)
@given(value=st.integers(-10, 10**6) | st.integers())
def test_a_container_timeout_is_in_its_range_or_refused_with_it(name, value):
    spec = TIMEOUTS[name]
    if spec.low <= value <= spec.high:
        assert getattr(ContainerTimeouts(**{name: value}), name) == value
    else:
        with pytest.raises(InvalidInput, match=f"{name}=.* from {spec.low} to {spec.high}") as caught:
            ContainerTimeouts(**{name: value})
        assert caught.value.code == "INVALID_TIMEOUT"


@pytest.mark.parametrize("value", ["1000", 1000.0, True, [1000], HUGE])
def test_a_container_timeout_is_a_whole_number(value):
    with pytest.raises(InvalidInput):
        ContainerTimeouts(wait_interval_ms=value)


def test_ranges_defaults_and_variables_are_those_of_the_design():
    rows = {name: (spec.default, spec.low, spec.high, spec.variable) for name, spec in TIMEOUTS.items()}
    assert rows == {
        "instance_get_timeout_ms": (30000, 5000, 300000, "SANDBOX_INSTANCE_TIMEOUT_MS"),
        "port_ready_timeout_ms": (90000, 10000, 600000, "SANDBOX_PORT_TIMEOUT_MS"),
        "wait_interval_ms": (1000, 100, 5000, "SANDBOX_POLL_INTERVAL_MS"),
    }
    defaults = asdict(ResolvedOptions())
    assert defaults["limits"] == {"cpus": 2, "memory": 2 * GIB, "pids": 512, "disk": 10 * GIB}
    assert (defaults["sleep_after"], defaults["stop_after"], defaults["max_busy"]) == (600, 3600, 86400)
    assert (defaults["keep_alive"], defaults["engine"], defaults["base_url"]) == (False, "auto", None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512m", 512 * MIB),
        ("2g", 2 * GIB),
        ("2GiB", 2 * GIB),
        ("1024 MB", GIB),
        ("1T", 1024 * GIB),
        ("99999999b", 99999999),
    ],
)
def test_sizes_are_read_as_powers_of_1024(text, size):
    assert Limits(memory=text).memory == size


@pytest.mark.parametrize(
    "given_limits",
    [
        *({"memory": value} for value in ("2 x", "", "2.5g", "-1g", "5i", "9" * 30, 1, 2.0 * GIB, True, [], 10**5000)),
        *({"cpus": value} for value in (0, -1, float("nan"), float("inf"), "2", True, 10**5000)),
        *({"pids": value} for value in (1, 1.5, "100", 2**40)),
        {"disk": 1},
        {"swap": 1},
        {5: 1},
        [],
        "2g",
    ],
)
def test_a_wrong_limit_is_refused_by_name(given_limits):
    with pytest.raises(InvalidInput, match="limits") as caught:
        SandboxOptions(limits=given_limits)
    assert caught.value.code == "INVALID_OPTION"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("engine", value) for value in ("podman", "", 1, ["docker"])),
        *(("network", value) for value in ("all", True)),
        *(("image", value) for value in ("", "-rm", "a b", "a\n", 1, "a" * 300)),
        *(("base_url", value) for value in ("a", "ftp://a", "http://", "http://u:p@a", "http://a?x", "http://a/ b", 1)),
        *(("keep_alive", value) for value in (1, 0, "yes")),
        *(
            ("env", value)
            for value in ({"": "x"}, {"A=": "x"}, {"1A": "x"}, {1: "x"}, {"A": 1}, {"A": "\0"}, "A=1", [])
        ),
        *(("labels", value) for value in ({"": "x"}, {"a b": "x"}, {"a": None})),
        *(("container_timeouts", value) for value in ({"x": 1}, [], 5)),
    ],
)
def test_a_wrong_option_is_refused_by_name(name, value):
    with pytest.raises(InvalidInput, match=name) as caught:
        SandboxOptions(**{name: value})
    assert caught.value.code == "INVALID_OPTION"


def test_a_secret_in_the_environment_is_never_shown():
    with pytest.raises(InvalidInput) as caught:
        SandboxOptions(env={"TOKEN": "hunter2\0"})
    assert "TOKEN" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# --- what travels, what is kept ------------------------------------------------------------------------------------


@given(options)
def test_options_survive_json(given):
    assert SandboxOptions.from_json(json.loads(json.dumps(given.to_json()))) == given


@given(given_options)
def test_only_what_was_given_is_kept(given):
    kept = SandboxOptions(**given).to_json()
    assert set(kept) == {name for name, value in given.items() if value or name not in ("limits", "container_timeouts")}
    assert SandboxOptions().to_json() == {}


def test_an_empty_environment_is_a_value_as_any_other():
    stored = SandboxOptions(env={"A": "1"})
    assert resolve(SandboxOptions(env={}), stored).env == {}
    assert resolve(SandboxOptions(), stored).env == {"A": "1"}


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_options_that_are_no_object_are_refused(body):
    with pytest.raises(InvalidInput) as caught:
        SandboxOptions.from_json(body)
    assert caught.value.code == "INVALID_REQUEST"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*SandboxOptions.__dataclass_fields__, "other"]), json_values, max_size=4))
def test_any_json_makes_options_or_an_error_of_ours(body):
    try:
        made = SandboxOptions.from_json(body)
    except InvalidInput as problem:
        assert problem.code in ("INVALID_OPTION", "INVALID_DURATION", "INVALID_TIMEOUT")  # noqa: PT017 - either is right
    else:
        assert SandboxOptions.from_json(made.to_json()) == made


# --- precedence ----------------------------------------------------------------------------------------------------


def fields_of(given):
    """Every field on its own, those of groups too."""
    found = {}
    for name, value in given.to_json().items():
        grouped = name in ("limits", "container_timeouts")
        found.update({(name, key): item for key, item in value.items()} if grouped else {(name,): value})
    return found


@given(st.lists(options, max_size=4))
def test_the_first_layer_that_gives_a_field_wins(layers):
    expected = {}
    for layer in reversed(layers):
        expected.update(fields_of(layer))
    assert fields_of(merge(*layers)) == expected


@given(options, options, options)
def test_merging_is_associative(one, two, three):
    assert merge(merge(one, two), three) == merge(one, merge(two, three)) == merge(one, two, three)


@given(st.lists(options, max_size=3))
def test_what_nobody_gave_is_the_default(layers):
    resolved, merged = resolve(*layers), merge(*layers)
    for name in ("sleep_after", "keep_alive", "engine", "network", "image"):
        given = getattr(merged, name)
        assert getattr(resolved, name) == (getattr(ResolvedOptions(), name) if given is None else given)
    for name in ("cpus", "memory", "pids", "disk"):
        given = getattr(merged.limits, name)
        assert getattr(resolved.limits, name) == (getattr(ResolvedOptions().limits, name) if given is None else given)


# --- the environment -----------------------------------------------------------------------------------------------


@given(timeouts)
def test_the_environment_gives_container_timeouts(given):
    environ = {TIMEOUTS[name].variable: str(value) for name, value in given.items()}
    assert from_environment(environ) == SandboxOptions(container_timeouts=given)


def test_the_environment_gives_the_engine():
    assert from_environment({"JUPYTER_SANDBOX_ENGINE": "docker"}).engine == "docker"
    assert from_environment({}) == SandboxOptions()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *(
            ("SANDBOX_INSTANCE_TIMEOUT_MS", text)
            for text in ("", "soon", "5s", "4999", "300001", "-1", "1e4", "\u0663" * 5, "9" * 40)
        ),
        ("SANDBOX_PORT_TIMEOUT_MS", "1"),
        ("SANDBOX_POLL_INTERVAL_MS", "5001"),
        ("JUPYTER_SANDBOX_ENGINE", "podman"),
    ],
)
def test_a_bad_environment_value_warns_names_the_variable_and_the_next_in_line_is_used(variable, text):
    with pytest.warns(SandboxWarning, match=f"^{variable}=.* is ignored: it is not ") as caught:
        layer = from_environment({variable: text})
    assert len(caught) == 1
    assert resolve(layer) == ResolvedOptions()


@given(timeouts, options, options)
def test_given_now_comes_before_stored_before_the_environment(from_env, stored, now):
    environ = {TIMEOUTS[name].variable: str(value) for name, value in from_env.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolved = resolve(now, stored, from_environment(environ))
    for name in TIMEOUTS:
        layers = [getattr(layer.container_timeouts, name) for layer in (now, stored)] + [from_env.get(name)]
        expected = next((value for value in layers if value is not None), TIMEOUTS[name].default)
        assert getattr(resolved.container_timeouts, name) == expected
