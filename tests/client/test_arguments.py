"""Wrong arguments are refused before anything starts, with an error that names the value and the rule."""

import warnings

import pytest

import jupyter_sandbox
from jupyter_sandbox import (
    AsyncSandbox,
    Sandbox,
    SandboxError,
    SandboxWarning,
    get_async_sandbox,
    get_sandbox,
    temporary_sandbox,
)
from jupyter_sandbox.client import arguments, remote


@pytest.fixture(autouse=True)
def no_transport(monkeypatch):
    """Nothing may be sent."""

    def refuse(*_):
        raise AssertionError("the client connected")

    monkeypatch.setattr(remote.Remote, "connection", refuse)


@pytest.mark.parametrize(
    ("sandbox_id", "options", "code", "named"),
    [
        ("", {}, "INVALID_ID_EMPTY", ""),
        ("a" * 64, {}, "INVALID_ID_TOO_LONG", "64"),
        ("-a", {}, "INVALID_ID_HYPHEN", "'-a'"),
        ("a_b", {}, "INVALID_ID_CHARACTER", "'_'"),
        ("Admin", {}, "INVALID_ID_RESERVED", "'Admin'"),
        (7, {}, "INVALID_ID_CHARACTER", "int"),
        ("a", {"sleep_after": "10x"}, "INVALID_DURATION", "sleep_after='10x'"),
        ("a", {"max_busy": 0}, "INVALID_DURATION", "max_busy=0"),
        ("a", {"container_timeouts": {"wait_interval_ms": 1}}, "INVALID_TIMEOUT", "100 to 5000"),
        ("a", {"container_timeouts": {"wait": 1}}, "INVALID_OPTION", "'wait'"),
        ("a", {"engine": "podman"}, "INVALID_OPTION", "engine='podman'"),
        ("a", {"image": "a b"}, "INVALID_OPTION", "image='a b'"),
        ("a", {"image": 3}, "INVALID_OPTION", "image=3"),
        ("a", {"network": "lan"}, "INVALID_OPTION", "network='lan'"),
        ("a", {"limits": {"memory": "1k"}}, "INVALID_OPTION", "limits.memory=1024"),
        ("a", {"env": {"A=B": "x"}}, "INVALID_OPTION", "'A=B'"),
        ("a", {"keep_alive": 1}, "INVALID_OPTION", "keep_alive=1"),
        ("a", {"base_url": "ftp://x"}, "INVALID_OPTION", "base_url='ftp://x'"),
        ("a", {"sleepAfter": "10m"}, "INVALID_OPTION", "'sleepAfter'"),
        ("a", {"sandbox_class": dict}, "INVALID_OPTION", "sandbox_class"),
    ],
)
@pytest.mark.parametrize("get", [get_sandbox, get_async_sandbox])
def test_get_sandbox_checks_everything_at_once_and_connects_to_nothing(get, sandbox_id, options, code, named):
    with pytest.raises(SandboxError) as caught:
        get(sandbox_id, **options)
    assert caught.value.code == code
    assert named in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_temporary_sandbox_checks_its_options_at_once():
    with pytest.raises(SandboxError, match="engine='podman'"):
        temporary_sandbox(engine="podman")


def test_a_bad_environment_value_warns_at_the_line_that_called_and_is_not_used(monkeypatch):
    monkeypatch.setenv("SANDBOX_POLL_INTERVAL_MS", "soon")
    with pytest.warns(SandboxWarning, match="SANDBOX_POLL_INTERVAL_MS='soon'") as caught:
        get_sandbox("a")
    assert caught[0].filename == __file__


def test_uppercase_is_lowered_or_kept_with_a_warning_at_the_line_that_called():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get_sandbox("MyProject").id == "myproject"
    with pytest.warns(SandboxWarning, match="'MyProject'") as caught:
        assert get_sandbox("MyProject", normalize_id=False).id == "MyProject"
    assert caught[0].filename == __file__


def test_a_subclass_of_either_face_is_returned_as_such():
    class Mine(Sandbox):
        def deploy(self):
            return self.id

    class MineAsync(AsyncSandbox):
        pass

    assert get_sandbox("a", sandbox_class=Mine).deploy() == "a"
    assert type(get_sandbox("a", sandbox_class=MineAsync)) is MineAsync
    assert type(get_async_sandbox("a", sandbox_class=MineAsync)) is MineAsync
    assert repr(get_sandbox("a", sandbox_class=Mine)) == "Mine('a')"


@pytest.mark.parametrize(
    ("call", "code", "named"),
    [
        (lambda s: s.exec(["ls"]), "INVALID_REQUEST", "list"),
        (lambda s: s.exec("a\0b"), "INVALID_REQUEST", "NUL"),
        (lambda s: s.exec("ls", timeout=0), "INVALID_TIMEOUT", "timeout=0"),
        (lambda s: s.exec("ls", timeout=float("nan")), "INVALID_TIMEOUT", "nan"),
        (lambda s: s.exec("ls", timeout=True), "INVALID_TIMEOUT", "True"),
        (lambda s: s.exec("ls", timeout="5s"), "INVALID_TIMEOUT", "'5s'"),
        (lambda s: s.exec("ls", timeout=10**400), "INVALID_TIMEOUT", "timeout=1000"),
        (lambda s: s.exec("ls", cwd=""), "INVALID_PATH", "cwd=''"),
        (lambda s: s.exec("ls", env={"A": 1}), "INVALID_OPTION", "'A'"),
        (lambda s: s.exec("ls", stdin=5), "INVALID_REQUEST", "int"),
        (lambda s: s.run_code(b"1"), "INVALID_REQUEST", "bytes"),
        (lambda s: s.run_code("1", timeout=-1), "INVALID_TIMEOUT", "timeout=-1"),
        (lambda s: s.run_code("1", context=""), "INVALID_REQUEST", "context=''"),
        (lambda s: s.run_code("1", context=3), "INVALID_REQUEST", "int"),
        (lambda s: s.run_code("1", on_stdout="print"), "INVALID_REQUEST", "on_stdout"),
        (lambda s: s.create_code_context("a\nb"), "INVALID_REQUEST", "context="),
        (lambda s: s.create_code_context(language=None), "INVALID_REQUEST", "language"),
        (lambda s: s.read_file("a\0"), "INVALID_PATH", "path="),
        (lambda s: s.read_file(""), "INVALID_PATH", "path=''"),
        (lambda s: s.read_file("\ud800"), "INVALID_PATH", "path="),
        (lambda s: s.read_file("a", encoding="klingon"), "INVALID_REQUEST", "klingon"),
        (lambda s: s.read_file("a", encoding="hex"), "INVALID_REQUEST", "hex"),
        (lambda s: s.write_file("a", 3), "INVALID_REQUEST", "int"),
        (lambda s: s.write_file("a", "é", encoding="ascii"), "INVALID_REQUEST", "ascii"),
        (lambda s: s.list_files(None), "INVALID_PATH", "None"),
        (lambda s: s.move_file("a", ""), "INVALID_PATH", "destination=''"),
        (lambda s: s.start(progress=3), "INVALID_REQUEST", "progress"),
    ],
)
def test_a_method_refuses_wrong_arguments_before_anything_is_sent(call, code, named):
    with pytest.raises(SandboxError) as caught:
        call(get_sandbox("a"))
    assert caught.value.code == code
    assert named in str(caught.value)


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x"), "x"])
def test_stdin_is_text_or_bytes(value):
    assert arguments.stdin(value) == b"x"


def test_a_handle_that_was_never_used_sends_nothing_when_it_is_temporary():
    with temporary_sandbox() as sandbox:
        assert sandbox.id.startswith("tmp-")


def test_what_a_user_reads_of_the_blocking_methods_is_complete():
    for name in ("exec", "run_code", "read_file", "status", "create_code_context"):
        method = getattr(Sandbox, name)
        assert method.__doc__ == getattr(AsyncSandbox, name).__doc__
        assert method.__qualname__ == f"Sandbox.{name}"
    assert set(dir(AsyncSandbox)) - {"__aenter__", "__aexit__"} <= set(dir(Sandbox))


@pytest.mark.parametrize("name", [name for name in jupyter_sandbox.__all__ if not name.startswith(("load", "unload"))])
def test_every_public_name_is_there(name):
    assert getattr(jupyter_sandbox, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = jupyter_sandbox.nothing
