"""The body of a request as a stream from tornado's side to aiohttp's: at most a few chunks are ever held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

_HELD = 4


class Upload:
    """What a caller sends, handed on as fast as it is taken."""

    def __init__(self) -> None:
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_HELD)
        self._unwanted = False

    async def put(self, chunk: bytes | None) -> None:
        """Hand on a chunk, None at the end; returns when there is room for more."""
        if not self._unwanted:
            await self._chunks.put(chunk)

    def refuse(self) -> None:
        """Nobody takes the rest: it is thrown away as it comes."""
        self._unwanted = True
        while not self._chunks.empty():
            self._chunks.get_nowait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks, up to the end."""
        while (chunk := await self._chunks.get()) is not None:
            yield chunk
