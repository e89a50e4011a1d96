"""The table of ``docs/isolation.md``, made from the probes: ``python -m tests.isolation.table`` writes it anew."""

from __future__ import annotations

from pathlib import Path

from .probe import OUTSIDE, Held, Open, Probe
from .probes import host, kernel, neighbours, privileges

PAGE = Path(__file__).resolve().parents[2] / "docs" / "isolation.md"
BEGIN, END = "<!-- made by tests/isolation/table.py -->", "<!-- end -->"
GROUPS = {
    "Privileges": privileges.PROBES,
    "The kernel": kernel.PROBES,
    "The host": host.PROBES,
    "Another sandbox": neighbours.PROBES,
}
ENGINES = ("bubblewrap", "docker")


def table() -> str:
    """All probes, by group, with what holds on each engine."""
    lines = ["| nobody inside can … | bubblewrap | Docker |", "|---|---|---|"]
    for title, probes in GROUPS.items():
        lines.append(f"| **{title}** | | |")
        lines += [_row(probe) for probe in probes]
    return "\n".join(lines)


def _row(probe: Probe) -> str:
    cells = [_cell(probe.at(engine)) for engine in ENGINES]
    user = probe.held.get("user")
    if isinstance(user, Held) and user.by and user != probe.at("bubblewrap"):
        cells[0] += f"; as an ordinary user: {_cell(user)}"
    return f"| {probe.name} | {' | '.join(cells)} |"


def _cell(found: Held | Open) -> str:
    if isinstance(found, Open):
        return f"**not refused**: {found.reason}"
    if found.no_control:
        return f"{found.no_control} *"
    named = [layer for layer in found.by if layer != OUTSIDE]
    return " + ".join([*named, *(["user namespace"] if OUTSIDE in found.by else [])])


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, rest = page.split(BEGIN, 1)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
