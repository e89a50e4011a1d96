"""The manager's line to the agent of one runtime: one HTTP session, and the news that the runtime is over.

What comes over it was written by a sandbox: nothing here trusts it beyond its size being bounded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from ..engines.base import Runtime
from ..errors import error

BASE = "http://agent"
"""The host name in URLs to an agent; the session connects to the Unix socket whatever it is."""

STOPPED = 4410
"""Close code of a WebSocket whose runtime has stopped."""
DESTROYED = 4404
"""Close code of a WebSocket whose sandbox was destroyed."""

_DIAL_TIMEOUT = 10.0
_ANSWER_TIMEOUT = 5.0
_REASONS = 5
_ANSWER_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True)
class Over:
    """Why a runtime is over: the WebSocket close code, and one phrase for a user."""

    code: int
    text: str


class AgentLink:
    """The line to one runtime; made when it starts or is adopted, closed when it ends."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.over: asyncio.Future[Over] = asyncio.get_running_loop().create_future()
        self.env: Mapping[str, str] | None = None
        self.doing = ""
        self.session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=runtime.socket, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_DIAL_TIMEOUT),
            headers={"Accept-Encoding": "identity"},
            skip_auto_headers=("User-Agent",),
            auto_decompress=False,
        )
        # aiohttp would send PUT and DELETE a second time by itself when a connection breaks; the first may have acted.
        self.session._retry_connection = False

    async def status(self) -> dict[str, Any]:
        """The agent's own ``/status``; empty if it does not answer in time, or with something else."""
        try:
            async with self.session.get(f"{BASE}/status", timeout=_soon(), allow_redirects=False) as answer:
                body = json.loads(await answer.content.readexactly(_length(answer)))
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError, asyncio.IncompleteReadError):
            return {}
        return body if isinstance(body, dict) else {}

    async def busy(self) -> bool:
        """Whether the agent says that something runs; one that does not answer is not kept awake for it.

        What it says is kept in ``doing``, short and printable: the end of a sentence that says that it is busy.
        """
        reasons = (await self.status()).get("busy")
        phrases = [_phrase(reason) for reason in reasons[:_REASONS]] if isinstance(reasons, list) else []
        self.doing = f" ({', '.join(phrases)})" if phrases else ""
        return bool(reasons)

    async def put_env(self, env: Mapping[str, str]) -> None:
        """Give processes that start later the environment ``env``, unless they have it already.

        Raises
        ------
        Unavailable
            ``AGENT_UNREACHABLE``; the next start gives it the environment anyway.
        """
        if self.env == env:
            return
        try:
            request = self.session.put(f"{BASE}/env", json={"env": dict(env)}, timeout=_soon(), allow_redirects=False)
            async with request as answer:
                if answer.status != 204:
                    raise error("OUTPUT_INVALID", f"The sandbox refused its environment (status {answer.status}).")
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise error("AGENT_UNREACHABLE", "The sandbox did not take its new environment.") from exc
        self.env = dict(env)

    async def close(self, over: Over) -> None:
        """Tell everybody who waits that the runtime is over, and break what is in flight."""
        if not self.over.done():
            self.over.set_result(over)
        await self.session.close()


def _phrase(reason: object) -> str:
    row = reason if isinstance(reason, dict) else {}
    words = f"{row.get('kind', 'something')} {row.get('name', '')!r}"
    return "".join(letter for letter in words if letter.isprintable())[:80]


def _soon() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT)


def _length(answer: aiohttp.ClientResponse) -> int:
    length = answer.content_length
    if answer.status != 200 or length is None or not 0 <= length <= _ANSWER_LIMIT:
        raise ValueError("not an answer that we asked for")
    return length
