"""A manager behind a Jupyter server, as ``JUPYTER_SANDBOX_URL`` and ``JUPYTER_SANDBOX_TOKEN`` name it.

The token is the Jupyter server's. It goes to the origin of that URL and nowhere else: a redirect is an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ..errors import error

URL = "JUPYTER_SANDBOX_URL"
TOKEN = "JUPYTER_SANDBOX_TOKEN"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class Elsewhere:
    """Where that manager answers (``url``, without a slash at its end), and the token that is sent there."""

    url: str
    token: str | None = field(default=None, repr=False)

    def session(self, *, reuse: bool, **options: Any) -> aiohttp.ClientSession:
        """A session that asks that origin only; ``reuse`` keeps connections open between requests."""
        headers = dict(options.pop("headers", {}))
        # The Jupyter server compresses answers where it may; who reads them here does not expect it.
        headers["Accept-Encoding"] = "identity"
        if self.token:
            headers["Authorization"] = f"token {self.token}"
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(_refuse_redirect)
        connector = aiohttp.TCPConnector(limit=0, force_close=not reuse)
        return aiohttp.ClientSession(connector=connector, headers=headers, trace_configs=[tracing], **options)


def from_environment() -> Elsewhere | None:
    """What the environment names; None where it names nothing, and the manager is this user's own.

    Raises
    ------
    InvalidInput
        ``INVALID_OPTION`` for something that is not the URL of a server.
    """
    given = os.environ.get(URL, "").strip()
    if not given:
        return None
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), None
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        # The value itself is not shown: it may hold a password or a token.
        raise error(
            "INVALID_OPTION",
            f"{URL} is not the address of a Jupyter server's sandboxes.",
            remedy="Write 'https://HOST/BASE/sandbox/api/', and give the token in JUPYTER_SANDBOX_TOKEN.",
        )
    return Elsewhere(given.rstrip("/"), os.environ.get(TOKEN) or None)


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
) -> None:
    raise error(
        "OUTPUT_INVALID", f"The Jupyter server at {params.url.origin()} sent us elsewhere; that is not followed."
    )
