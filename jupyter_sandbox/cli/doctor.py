"""`jupyter sandbox doctor`: what works here, what is isolated, what is left over, and what to do about each fault."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__, paths
from ..engines.base import Engine, Probe
from ..engines.choose import available_engines, decide
from ..errors import SandboxError
from . import examine, leftovers, records_seen
from .findings import EngineFound, Leftover, Report, screen

WORKS, BROKEN = 0, 1

Available = Callable[[Path], Mapping[str, Callable[[], Engine]]]
Confirm = Callable[[list[Leftover]], bool]


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "doctor",
        help="say what works on this machine, and how to mend what does not",
        description="Say which engines work on this machine, what they isolate, and how to mend what is wrong. "
        "Exit code 0 if a sandbox can run here, 1 if none can.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--clean", action="store_true", help="remove what is left over and belongs to no sandbox")
    parser.add_argument("--yes", action="store_true", help="do not ask before removing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, remove what is left over if told so, and tell all of it."""
    confirm = (lambda _: True) if arguments.yes else _ask
    report = asyncio.run(examined(confirm if arguments.clean else None))
    print(json.dumps(report.to_json(), indent=2, default=str) if arguments.json else screen(report))
    return WORKS if report.works else BROKEN


async def examined(clean: Confirm | None = None, available: Available = available_engines) -> Report:
    """All that can be found out here.

    Parameters
    ----------
    clean:
        Asked, with what is left over, whether to remove it. None: nothing is removed.
    available:
        What makes the engines; tests of failures bring their own.
    """
    report = Report(title=examine.title(), version=__version__)
    # The agent's zipapp goes to a place of its own, so that looking leaves nothing in the data directory.
    with tempfile.TemporaryDirectory(prefix="jsb-doctor-") as scratch:
        engines = _made(available(Path(scratch)), report)
        try:
            await _look(report, engines)
            await _leftovers(report, engines, clean)
        finally:
            for one in engines.values():
                await one.close()
    return report


def _made(factories: Mapping[str, Callable[[], Engine]], report: Report) -> dict[str, Engine]:
    made = {}
    for name, make in factories.items():
        try:
            made[name] = make()
        except Exception as exc:  # An engine that cannot even be made is a finding, and the others are looked at.
            report.engines.append(EngineFound(name=name, probe=Probe(False, f"{type(exc).__name__}: {exc}")))
    return made


async def _look(report: Report, engines: Mapping[str, Engine]) -> None:
    for name, one in engines.items():
        report.engines.append(await examine.engine(name, one))
        if name == "docker" and (host := report.engines[-1].probe.facts.get("host")):
            report.findings += examine.docker_socket(str(host))
    report.findings += examine.manager()
    report.findings += examine.data_directory()
    report.usual = _usual(report)


def _usual(report: Report) -> str | None:
    known = _records()
    if known is not None and known.engine is not None:
        return known.engine
    try:
        return decide({engine.name: engine.probe for engine in report.engines})
    except SandboxError:
        return None


def _records() -> records_seen.Records | None:
    try:
        return records_seen.read(paths.data_dir() / "records.sqlite")
    except records_seen.Unreadable:  # That is a finding of its own.
        return None


async def _leftovers(report: Report, engines: Mapping[str, Engine], clean: Confirm | None) -> None:
    sockets, findings = examine.runtime_directory()
    report.findings += findings
    data = paths.data_dir()
    answering = {one.name: engines[one.name] for one in report.engines if one.answers}
    report.leftovers = await leftovers.find(answering, data, sockets, _records)
    if clean is not None and report.leftovers and clean(report.leftovers):
        report.cleaned = True
        report.leftovers = [await leftovers.remove(one, engines, data) for one in report.leftovers]


def _ask(found: list[Leftover]) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("Nothing was removed: without a terminal, `--clean` needs `--yes`.", file=sys.stderr)
        return False
    for one in found:
        print(f"  {one}", file=sys.stderr)
    print("These belong to no sandbox. Remove them? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
