"""What `jupyter sandbox doctor` found, as data, as JSON and as a screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..engines.base import Probe
from ..models import to_json

Level = Literal["ok", "note", "fault"]

_WIDTH = 100
_SHOWN = {"ok": "ok", "note": "note", "fault": "FAULT"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    ``commands`` can be pasted into a terminal and mend a fault; ``advice`` says what no command can do.
    """

    about: str
    level: Level
    text: str
    advice: str = ""
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineFound:
    """An engine, what its probe said, and what would mend it where it does not work."""

    name: str
    probe: Probe
    facts: str = ""
    advice: str = ""
    commands: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether it can be asked for what it holds: it works, or only its image is wrong."""
        return self.probe.available or str(self.probe.facts.get("code", "")).startswith("IMAGE_")


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something of this installation that no record knows; ``removed`` once it is gone."""

    kind: Literal["engine", "directory", "socket"]
    name: str
    where: str
    removed: bool = False
    problem: str = ""

    def __str__(self) -> str:
        return f"{_KINDS[self.kind]} {self.name} ({self.where})"


_KINDS = {"engine": "a sandbox without a record:", "directory": "files without a record:", "socket": "a dead socket:"}


@dataclass
class Report:
    """All that was found."""

    title: str
    version: str
    engines: list[EngineFound] = field(default_factory=list)
    usual: str | None = None
    findings: list[Finding] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    cleaned: bool = False

    @property
    def works(self) -> bool:
        """Whether a sandbox can run here."""
        return any(engine.probe.available for engine in self.engines)

    def to_json(self) -> dict[str, Any]:
        """As programs read it."""
        return {
            "version": self.version,
            "works": self.works,
            "default_engine": self.usual,
            "engines": [_engine_json(engine) for engine in self.engines],
            "findings": [asdict(finding) for finding in self.findings],
            "leftovers": [asdict(leftover) for leftover in self.leftovers],
        }


def _engine_json(engine: EngineFound) -> dict[str, Any]:
    body: Mapping[str, Any] = to_json(engine.probe)
    return {"name": engine.name, **body, "advice": engine.advice, "commands": list(engine.commands)}


def screen(report: Report) -> str:
    """As a person reads it."""
    return "\n".join(
        [
            report.title,
            "",
            "Engines",
            *_engines(report),
            "",
            "This installation",
            *(line for finding in report.findings for line in _finding(finding)),
            "",
            "Leftovers",
            *_leftovers(report),
            "",
            *_conclusion(report),
        ]
    )


def _engines(report: Report) -> Iterator[str]:
    for engine in report.engines:
        if engine.probe.available:
            yield from _block(engine.name, "ok", engine.facts)
            yield from _protections(engine.probe)
        else:
            yield from _block(engine.name, "no", engine.probe.reason or "It does not work here.")
            yield from _remedy(engine.advice, engine.commands)


def _protections(probe: Probe) -> Iterator[str]:
    held = [one.name for one in probe.isolation if one.enforced]
    yield from _block("", "", f"enforced: {', '.join(held) or 'nothing'}")
    for one in probe.isolation:
        if not one.enforced:
            yield from _block("", "", f"not enforced: {one.name} ({one.reason})")


def _finding(finding: Finding) -> Iterator[str]:
    yield from _block(finding.about, _SHOWN[finding.level], finding.text)
    yield from _remedy(finding.advice, finding.commands)


def _remedy(advice: str, commands: Iterable[str]) -> Iterator[str]:
    if advice:
        yield from _block("", "", advice)
    for command in commands:
        yield f"{'':23}  {command}"  # Never wrapped: it is there to be copied.


def _leftovers(report: Report) -> Iterator[str]:
    if not report.leftovers:
        yield "  none"
    for leftover in report.leftovers:
        state = "removed" if leftover.removed else f"not removed: {leftover.problem}" if leftover.problem else "left"
        yield f"  {state:7}  {leftover}"
    if any(not one.removed for one in report.leftovers) and not report.cleaned:
        yield "  To remove them:"
        yield "    jupyter sandbox doctor --clean"


def _conclusion(report: Report) -> Iterator[str]:
    faults = sum(finding.level == "fault" for finding in report.findings)
    if not report.works:
        yield "No engine works here, so no sandbox can run. Mend one of the engines above; one is enough."
    elif report.usual:
        yield f"Sandboxes can run here. New ones use {report.usual}, unless they ask for another engine."
    if faults:
        yield f"{faults} fault{'s' * (faults > 1)} to mend, marked FAULT above."


def _block(about: str, level: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, _WIDTH - 23, break_long_words=False, break_on_hyphens=False) or [""]
    yield f"  {about:13} {level:6} {lines[0]}".rstrip()
    for line in lines[1:]:
        yield f"{'':23}{line}"
