"""``/files``: bytes streamed both ways, and what else can be done with files."""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Any, Callable, Optional

from tornado.iostream import IOStream
from tornado.web import stream_request_body

from ..errors import SandboxError, error
from . import files
from .web import Handler

PIECE = 256 * 2**10
"""Bytes that are read and sent at a time; the next piece waits until the client took this one."""

UPLOAD_MAX = 2**62
"""No limit of ours: the disk's limit is enforced by the engine."""


@stream_request_body
class FilesHandler(Handler):
    """``GET``, ``PUT`` and ``DELETE /files?path=…``."""

    _upload: Optional[files.Upload] = None
    _problem: Optional[SandboxError] = None

    def prepare(self) -> None:
        """Begin an upload. A problem is told at its end: a client that is still sending does not listen."""
        if self.request.method != "PUT":
            return
        getattr(self.request.connection, "set_max_body_size", lambda _: None)(UPLOAD_MAX)
        try:
            self._upload = files.Upload(self._path(), self._mode())
        except SandboxError as problem:
            self._problem = problem

    def data_received(self, chunk: bytes) -> None:
        """A piece of an upload."""
        if self._upload is None or self._problem is not None:
            return
        try:
            self._upload.write(chunk)
        except SandboxError as problem:
            self._problem = problem

    def put(self) -> None:
        """The upload is complete."""
        if self._problem is not None:
            raise self._problem
        assert self._upload is not None
        self._upload.finish()
        self._upload = None
        self.answer()

    def on_finish(self) -> None:
        """Whatever is not in place by now will not be."""
        self._abandon()

    def on_connection_close(self) -> None:
        """The client went away in the middle."""
        self._abandon()

    async def get(self) -> None:
        """A file's bytes, its ``FileInfo`` (``stat=1``), or a directory's entries (``list=1``)."""
        path = self._path()
        if self._flag("stat"):
            with files.failing(path):
                self.answer(files.info(path))
        elif self._flag("list"):
            recursive, hidden = self._flag("recursive"), self._flag("hidden")
            self.answer({"entries": await _aside(files.listing, path, recursive=recursive, hidden=hidden)})
        else:
            await self._download(path)

    async def delete(self) -> None:
        """Delete it."""
        await _aside(files.delete, self._path(), recursive=self._flag("recursive"))
        self.answer()

    async def _download(self, path: str) -> None:
        fd = files.open_to_read(path)
        try:
            with files.failing(path):
                size, piece = os.fstat(fd).st_size, os.read(fd, PIECE)
            # Files below /proc have content, but no size.
            left = max(size, len(piece)) if size else len(piece)
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("Content-Length", str(left))
            while piece and left:
                self.write(piece[:left])
                await self.flush()
                left -= len(piece[:left])
                piece = os.read(fd, PIECE) if left else b""
        finally:
            os.close(fd)
        if left:
            self._break_off()

    def _break_off(self) -> None:
        """The file became shorter while it was sent: the client sees a connection that ended early."""
        stream: IOStream = getattr(self.request.connection, "stream")  # noqa: B009 - not in the abstract connection
        stream.close()

    def _abandon(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.abandon()

    def _path(self) -> str:
        return self.agent.environment.resolve(self._query("path"))

    def _mode(self) -> Optional[int]:
        text = self._query("mode")
        if text is None:
            return None
        try:
            mode = int(text, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o7777:
            raise error("INVALID_REQUEST", f"The mode {text!r} is not an octal number up to 7777.")
        return mode

    def _flag(self, name: str) -> bool:
        return self._query(name) in ("1", "true")

    def _query(self, name: str) -> Optional[str]:
        """A parameter exactly as it was sent (tornado's own getter strips spaces and control characters)."""
        values = self.request.query_arguments.get(name)
        return os.fsdecode(values[-1]) if values else None


class FileActionHandler(Handler):
    """``POST /files/move`` and ``POST /files/mkdir``."""

    async def post(self, action: str) -> None:
        """Do it."""
        body, resolve = self.body(), self.agent.environment.resolve
        if action == "move":
            await _aside(files.move, resolve(body.get("source")), resolve(body.get("destination")))
        else:
            files.mkdir(resolve(body.get("path")), parents=bool(body.get("parents", True)))
        self.answer()


async def _aside(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Off the event loop: a directory may hold a million files."""
    work = functools.partial(call, *arguments, **options)
    return await asyncio.get_running_loop().run_in_executor(None, work)
