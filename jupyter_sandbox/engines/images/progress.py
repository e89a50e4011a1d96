"""Reads the plain log of a BuildKit build: which step of how many runs, how long it took, what it writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_LINE = re.compile(r"#(\d+) (.*)")
_STEP = re.compile(r"\[(?:\S+ )?(\d+)/(\d+)\] (.*)")
_DONE = re.compile(r"DONE ([\d.]+)s")
_OUTPUT = re.compile(r"[\d.]+ (.*)")
_TITLE = re.compile(r': "([^"]+)"')
_TITLE_LENGTH = 60
_LAST = ("exporting to image", "export the image")
"""BuildKit's name of what comes after the last step, and ours."""


@dataclass(frozen=True)
class BuildEvent:
    """Something that a build did.

    ``number`` of ``total`` is the step (both 0 for what comes after the last), ``title`` its name; ``text`` is a
    line that it wrote, ``seconds`` how long it took, None if it was found in the cache.
    """

    kind: Literal["begin", "output", "done"]
    number: int
    total: int
    title: str
    text: str = ""
    seconds: float | None = None


class Log:
    """Turns the lines of a log into calls of ``report``."""

    def __init__(self, report: Callable[[BuildEvent], None]) -> None:
        self._report = report
        self._steps: dict[str, tuple[int, int, str]] = {}
        self._finished: set[str] = set()

    def read(self, line: str) -> None:
        """Take one line, without its end."""
        if (match := _LINE.fullmatch(line)) is None:
            return
        vertex, text = match.groups()
        if (step := _step(text)) is not None:
            if vertex not in self._steps:
                self._steps[vertex] = step
                self._report(BuildEvent("begin", *step))
        elif vertex in self._steps and vertex not in self._finished:
            self._inside(vertex, text)

    def _inside(self, vertex: str, text: str) -> None:
        step = self._steps[vertex]
        if (done := _DONE.fullmatch(text)) is not None:
            self._finish(vertex, float(done[1]))
        elif text == "CACHED":
            self._finish(vertex, None)
        elif (output := _OUTPUT.fullmatch(text)) is not None:
            self._report(BuildEvent("output", *step, text=output[1].strip()))

    def _finish(self, vertex: str, seconds: float | None) -> None:
        self._finished.add(vertex)
        self._report(BuildEvent("done", *self._steps[vertex], seconds=seconds))


def _step(text: str) -> tuple[int, int, str] | None:
    if text == _LAST[0]:
        return 0, 0, _LAST[1]
    if (match := _STEP.match(text)) is None:
        return None
    return int(match[1]), int(match[2]), _title(match[3])


def _title(instruction: str) -> str:
    """The name that a step of our Dockerfile gives itself, else the instruction, shortened."""
    if (named := _TITLE.search(instruction)) is not None:
        return named[1]
    return instruction if len(instruction) <= _TITLE_LENGTH else instruction[: _TITLE_LENGTH - 3] + "..."
