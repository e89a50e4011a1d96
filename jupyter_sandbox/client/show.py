"""Statuses and lists of sandboxes as plain text, for a terminal and for `%sandbox`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from ..models import SandboxStatus, SandboxSummary, Usage

_COLUMNS = ("ID", "STATE", "ENGINE", "CREATED", "LAST ACTIVE", "SLEEPS")
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def table(summaries: Iterable[SandboxSummary], now: datetime | None = None) -> str:
    """One line for each sandbox under a line of titles."""
    at = now or datetime.now(UTC)
    rows = [(*_COLUMNS,), *(_row(summary, at) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(summary: SandboxSummary, now: datetime) -> tuple[str, ...]:
    return (
        summary.id,
        summary.state,
        summary.engine or "-",
        ago(summary.created_at, now),
        ago(summary.last_active_at, now),
        "never" if summary.keep_alive else ago(summary.sleeps_at, now),
    )


def status(found: SandboxStatus, now: datetime | None = None) -> str:
    """All that is known of one sandbox, a line each, what is not known left out."""
    return "\n".join(_lines(found, now or datetime.now(UTC)))


def _lines(found: SandboxStatus, now: datetime) -> Iterator[str]:
    sleeps = "never" if found.keep_alive else ago(found.sleeps_at, now)
    facts: Sequence[tuple[str, str]] = (
        ("id", found.id),
        ("state", found.state),
        ("error", found.error or ""),
        ("engine", found.engine or ""),
        ("created", ago(found.created_at, now)),
        ("last active", ago(found.last_active_at, now)),
        ("sleeps", sleeps),
        ("uses", _usage(found.usage)),
        ("limits", _limits(found)),
        ("contexts", ", ".join(f"{context.name} ({context.state})" for context in found.contexts)),
        ("ports", ", ".join(f"{port.port} at {port.url}" for port in found.exposed_ports)),
    )
    yield from (f"{name:<12}{value}" for name, value in facts if value not in ("", "-"))
    if found.isolation:
        yield "isolation"
        yield from (f"  {protection}" for protection in found.isolation)


def _usage(usage: Usage) -> str:
    parts = (
        None if usage.cpu_seconds is None else f"{usage.cpu_seconds:.1f} s of CPU",
        None if usage.memory is None else f"{size(usage.memory)} memory",
        None if usage.disk is None else f"{size(usage.disk)} disk",
        None if usage.pids is None else f"{usage.pids} processes and threads",
    )
    return ", ".join(filter(None, parts))


def _limits(found: SandboxStatus) -> str:
    shown = {"memory": size, "disk": size}
    return ", ".join(
        f"{shown[name](value)} {name}" if name in shown else f"{value:g} {name}" for name, value in found.limits.items()
    )


def size(amount: float) -> str:
    """Bytes as a short text in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"


def ago(moment: datetime | None, now: datetime) -> str:
    """``moment`` as seen from ``now``: "5 min ago", "in 2 h"; "-" if it is not known."""
    if moment is None:
        return "-"
    seconds = (now - moment).total_seconds()
    text = duration(abs(seconds))
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def duration(seconds: float) -> str:
    """Seconds as a short text of one unit."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
