"""Statuses and lists as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jupyter_sandbox.client import show
from jupyter_sandbox.models import ContextInfo, Protection, SandboxStatus, SandboxSummary, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s ago"), (180, "3 min ago"), (7200, "2 h ago"), (200_000, "2 d ago"), (-600, "in 10 min")],
)
def test_times_are_told_as_distances(seconds: float, text: str) -> None:
    assert show.ago(NOW - timedelta(seconds=seconds), NOW) == text
    assert show.ago(None, NOW) == "-"


@pytest.mark.parametrize(
    ("amount", "text"), [(512, "512 B"), (2048, "2 KiB"), (2 * 1024**3, "2 GiB"), (1024**5, "1024 TiB")]
)
def test_sizes_are_powers_of_1024(amount: int, text: str) -> None:
    assert show.size(amount) == text


def test_columns_stand_below_their_titles() -> None:
    lines = show.table(
        [
            SandboxSummary("a", "running", "docker", None, NOW, NOW, NOW + timedelta(minutes=10)),
            SandboxSummary("much-longer", "sleeping", "bubblewrap", keep_alive=True),
        ],
        NOW,
    ).splitlines()
    assert len(lines) == 3
    assert {line.index(word) for line, word in zip(lines, ("STATE", "running", "sleeping"), strict=True)} == {13}
    assert lines[1].endswith("in 10 min")
    assert lines[2].endswith("never")


def test_a_status_leaves_out_what_is_not_known_and_names_what_is_not_enforced() -> None:
    found = SandboxStatus(
        "mine",
        "running",
        isolation=(Protection("network", True), Protection("disk", False, "no quota")),
        usage=Usage(cpu_seconds=1.25, memory=1024**2),
        limits={"cpus": 2.0, "memory": 2 * 1024**3, "pids": 512},
        contexts=(ContextInfo("1", "default", "python", "idle"),),
    )
    text = show.status(found, NOW)
    assert "created" not in text
    assert "uses        1.2 s of CPU, 1 MiB memory" in text
    assert "limits      2 cpus, 2 GiB memory, 512 pids" in text
    assert "contexts    default (idle)" in text
    assert "  disk: not enforced (no quota)" in text
