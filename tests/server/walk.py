"""Every request that the extension answers, as its own router says; so that no new route can be forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import aiohttp
from tornado.web import RequestHandler

from jupyter_sandbox.server.channel import ChannelHandler
from jupyter_sandbox.server.routes import UpgradeMatches

from .servers import Server

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    "Sec-WebSocket-Protocol": "v1.kernel.websocket.jupyter.org",
}


class Step(NamedTuple):
    """One request. ``implemented``: the handler has a method for the verb."""

    method: str
    path: str
    handler: type[RequestHandler]
    implemented: bool
    headers: dict[str, str]

    async def ask(self, client: aiohttp.ClientSession, server: Server, **options: object) -> tuple[int, bytes]:
        """The status, and the body of the answer; a request without end is cut."""
        headers = {**self.headers, **options.pop("headers", {})}
        url = server.at("").with_path(self.path, encoded=True)
        async with client.request(self.method, url, headers=headers, allow_redirects=False, **options) as answer:
            return answer.status, b"" if answer.status in (101, 200) else await answer.read()


def steps(server: Server) -> Iterator[Step]:
    """Every verb on every route."""
    for rule in server.rules:
        upgrade = UPGRADE if isinstance(rule.matcher, UpgradeMatches) else {}
        for path in paths(rule.matcher.regex.pattern):
            for method in rule.target.SUPPORTED_METHODS:
                own = getattr(rule.target, method.lower()) is not getattr(RequestHandler, method.lower())
                yield Step(method, path, rule.target, own, upgrade)


def paths(pattern: str) -> list[str]:
    """Paths that ``pattern`` matches: one for each alternative in it."""
    text = pattern.removesuffix("$").replace("([^/]+)/([^/]+)", "-/one").replace("(.+)", "api/kernels/k/channels")
    text = re.sub(r"\\(.)", r"\1", text)
    found = re.search(r"\(\?:([a-z|]+)\)", text)
    made = [text.replace(found[0], word) for word in found[1].split("|")] if found else [text]
    for path in made:
        assert re.fullmatch(r"[A-Za-z0-9%/_.-]+", path), f"the walk does not understand {pattern}"
        assert re.fullmatch(pattern, path)
    return made


def action(step: Step) -> str:
    """What an authorizer is to be asked for."""
    if step.handler is ChannelHandler:
        return "execute"
    if step.method == "POST" and "/agent/" in step.path:
        return "execute"
    return "read" if step.method == "GET" else "write"
