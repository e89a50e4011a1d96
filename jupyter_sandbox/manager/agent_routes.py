"""Which requests reach an agent, and which of them are work: the one table of the agent proxy.

A path is matched as it came over the wire: no percent sign can stand in any of these routes, so there is nothing
to decode, and ``.`` and ``..`` are no names. What does not match does not exist; ``/ports`` is not here because only
previews reach it, ``/env`` because it is the manager's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_plus

Kind = Literal["http", "files", "contexts", "channel"]

_NAME = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]{1,200}"
_KERNEL = rf"api/kernels/{_NAME}"


@dataclass(frozen=True)
class Route:
    """One line of the table. ``looking``: the methods that neither wake the sandbox nor count as activity."""

    pattern: re.Pattern[str]
    methods: frozenset[str]
    looking: frozenset[str] = frozenset({"GET"})
    kind: Kind = "http"


def _route(path: str, methods: str, looking: str = "GET", kind: Kind = "http") -> Route:
    return Route(re.compile(path, re.ASCII), frozenset(methods.split()), frozenset(looking.split()), kind)


ROUTES = (
    _route(r"status", "GET"),
    _route(r"exec", "POST"),
    _route(r"files", "GET PUT DELETE", looking="", kind="files"),
    _route(r"files/(?:move|mkdir)", "POST"),
    _route(rf"api/kernelspecs(?:/{_NAME})?", "GET"),
    _route(r"api/kernels", "GET POST", kind="contexts"),
    _route(_KERNEL, "GET DELETE"),
    _route(rf"{_KERNEL}/(?:interrupt|restart)", "POST"),
    _route(rf"{_KERNEL}/channels", "GET", kind="channel"),
)


def match(method: str, raw_path: str) -> Route | None:
    """The route of a request, or None if no such request reaches an agent.

    Parameters
    ----------
    raw_path:
        What follows ``/agent/``, not decoded.
    """
    for route in ROUTES:
        if method in route.methods and route.pattern.fullmatch(raw_path):
            return route
    return None


def clean_query(raw_query: str) -> str:
    """The query string as it came, without ``token``, which belongs to the server in front and to nobody else."""
    kept = (part for part in raw_query.split("&") if unquote_plus(part.split("=", 1)[0]) != "token")
    return "&".join(kept)
