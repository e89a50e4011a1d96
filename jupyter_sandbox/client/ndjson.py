"""Streams of JSON objects, one a line, read with a bound on every line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from ..errors import error, error_from_json

if TYPE_CHECKING:
    import aiohttp

MAX_LINE = 16 * 1024**2
"""Bytes of one line; agents write far shorter ones."""


async def objects(stream: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The objects of ``stream`` as they come; a line ``{"error": …}`` is raised as that error.

    Raises
    ------
    Failed
        ``OUTPUT_INVALID`` for a line that is too long or no JSON object. Whether the stream was complete is for
        the caller to see: it knows what the last line has to be.
    """
    rest = bytearray()
    async for part in stream.iter_any():
        start = len(rest)
        rest += part
        if (end := rest.rfind(b"\n", start)) < 0:
            _check_length(rest)
            continue
        lines = bytes(rest[:end]).split(b"\n")
        del rest[: end + 1]
        for line in filter(None, lines):
            yield parse(line)
    if rest:
        yield parse(bytes(rest))


def parse(line: bytes) -> dict[str, Any]:
    """One line as an object."""
    _check_length(line)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise error("OUTPUT_INVALID", f"The answer has a line that is not JSON: {problem}.") from problem
    if not isinstance(value, dict):
        raise error("OUTPUT_INVALID", "The answer has a line that is not a JSON object.")
    if "error" in value and "event" not in value:
        raise error_from_json(value)
    return value


def _check_length(line: bytes | bytearray) -> None:
    if len(line) > MAX_LINE:
        raise error("OUTPUT_INVALID", f"The answer has a line of more than {MAX_LINE} bytes.")
