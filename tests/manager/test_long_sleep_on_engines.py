"""The long sleep on real engines: what is kept, what is told, which handles are stale."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from jupyter_sandbox import SandboxError, get_sandbox, list_sandboxes

PATIENCE = 90.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that looking does not disturb."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def test_a_stopped_sandbox_has_given_its_memory_back_and_wakes_with_its_files(
    engine_name: str, environment: Any
) -> None:
    with get_sandbox("sleeper") as sandbox:
        context = sandbox.create_code_context("other")
        sandbox.run_code("a = 1")
        channel = sandbox.channel("default")
        sandbox.exec("echo w > kept; echo h > ~/kept; echo t > /tmp/kept")
        get_sandbox("sleeper", sleep_after=0.5, stop_after=0.5).start()
        until(lambda: sandbox.status().state == "stopped")
        assert sandbox.status().usage.memory in (None, 0)
        with pytest.raises(SandboxError) as caught:
            sandbox.run_code("a", context=context)
        assert caught.value.code == "STALE_HANDLE"
        assert sandbox.status().state == "stopped", "a stale handle woke it"
        assert channel.closed

    with get_sandbox("sleeper", sleep_after="10m") as sandbox:
        assert sandbox.exec("cat kept ~/kept /tmp/kept").stdout == "w\nh\nt\n"
        assert "stop_after" in (sandbox.previous_end or "")
        assert set(sandbox.lost_contexts) == {"default", "other"}
        assert sandbox.run_code("a").error.name == "NameError"
        sandbox.extend("1h")
        assert (sandbox.status().sleeps_at - sandbox.status().last_active_at).total_seconds() > 3000
        with pytest.raises(SandboxError) as caught:
            get_sandbox("sleeper", engine="docker" if engine_name == "bubblewrap" else "bubblewrap").exec("true")
        assert (caught.value.code, "docker" in str(caught.value), "bubblewrap" in str(caught.value)) == (
            "OPTION_CONFLICT",
            True,
            True,
        )


def test_busy_for_max_busy_it_sleeps_and_then_goes_on_where_it_was(engine_name: str, environment: Any) -> None:
    with get_sandbox("busy") as sandbox:
        sandbox.run_code("import threading, time")
        sandbox.exec("nohup sh -c 'while true; do echo >> beats; sleep 0.2; done' >/dev/null 2>&1 &")
        sandbox.channel("default").execute("while True: time.sleep(0.1)")
        get_sandbox("busy", sleep_after=0.5, max_busy=1).start()
        until(lambda: sandbox.status().state == "sleeping")
        (summary,) = list_sandboxes()
        assert summary.state == "sleeping"
        get_sandbox("busy", sleep_after="10m", max_busy="24h").start()
        before = len(sandbox.read_file("beats"))
        until(lambda: len(sandbox.read_file("beats")) > before)


def test_kept_alive_it_outlasts_every_timer(engine_name: str, environment: Any) -> None:
    with get_sandbox("kept", sleep_after=0.1, stop_after=0.1, max_busy=0.1, keep_alive=True) as kept:
        kept.run_code("a = 1")
        with get_sandbox("other", sleep_after=0.5, stop_after=0.5) as other:
            other.exec("true")
            until(lambda: other.status().state == "stopped")
        assert kept.status().state == "running"
        assert kept.status().sleeps_at is None
