"""Files in a sandbox: read, write, list, make, move and delete (the agent's ``/files``)."""

from __future__ import annotations

import codecs
from typing import Any

from ..errors import NotFound, error
from ..models import FileInfo
from . import arguments
from .remote import Remote, read

MAX_READ = 1024**3
"""Bytes of a file that is read as a whole."""


async def write(remote: Remote, path: str, content: str | bytes, encoding: str) -> None:
    """See :meth:`AsyncSandbox.write_file`."""
    params = {"path": arguments.path(path)}
    await remote.agent_json("PUT", "files", params=params, data=_encode(content, encoding), repeatable=True)


async def read_whole(remote: Remote, path: str, encoding: str | None) -> str | bytes:
    """See :meth:`AsyncSandbox.read_file`."""
    from .connection import read_bounded

    params = {"path": arguments.path(path)}
    codec = None if encoding is None else _codec(encoding)
    async with remote.agent("GET", "files", params=params) as response:
        content = await read_bounded(response, MAX_READ)
    return content if codec is None else _decode(content, codec, path)


async def entries(remote: Remote, path: str, *, recursive: bool, hidden: bool) -> list[FileInfo]:
    """See :meth:`AsyncSandbox.list_files`."""
    params = {"path": arguments.path(path), "list": "1"}
    if recursive:
        params["recursive"] = "1"
    if hidden:
        params["hidden"] = "1"
    answer = await remote.agent_json("GET", "files", params=params)
    found = answer.get("entries")
    if not isinstance(found, list):
        raise error("OUTPUT_INVALID", "The sandbox sent a list of files that is no list.")
    return [_entry(item) for item in found]


async def make_directory(remote: Remote, path: str, *, parents: bool) -> None:
    """See :meth:`AsyncSandbox.mkdir`."""
    await remote.agent_json("POST", "files/mkdir", json={"path": arguments.path(path), "parents": bool(parents)})


async def delete(remote: Remote, path: str, *, recursive: bool) -> None:
    """See :meth:`AsyncSandbox.delete_file`."""
    params = {"path": arguments.path(path)}
    if recursive:
        params["recursive"] = "1"
    await remote.agent_json("DELETE", "files", params=params)


async def move(remote: Remote, source: str, destination: str) -> None:
    """See :meth:`AsyncSandbox.move_file`."""
    body = {"source": arguments.path(source, "source"), "destination": arguments.path(destination, "destination")}
    await remote.agent_json("POST", "files/move", json=body)


async def exists(remote: Remote, path: str) -> bool:
    """See :meth:`AsyncSandbox.exists`."""
    try:
        await remote.agent_json("GET", "files", params={"path": arguments.path(path), "stat": "1"})
    except NotFound as problem:
        if problem.code != "FILE_NOT_FOUND":
            raise
        return False
    return True


def _entry(item: Any) -> FileInfo:
    info = read(FileInfo, item)
    typed = isinstance(info.size, int) and isinstance(info.mode, int) and info.modified_at is not None
    if not (typed and isinstance(info.name, str) and isinstance(info.path, str) and isinstance(info.type, str)):
        raise error("OUTPUT_INVALID", "The sandbox sent an entry of a directory that cannot be read.")
    return info


def _codec(encoding: object) -> str:
    try:
        codec = codecs.lookup(arguments.text("encoding", encoding)).name
        "".encode(codec)  # Refuses those that turn bytes into bytes.
        return codec
    except LookupError:
        raise error("INVALID_REQUEST", f"encoding={encoding!r} is not an encoding that Python knows.") from None


def _encode(content: object, encoding: str) -> bytes:
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if not isinstance(content, str):
        raise error("INVALID_REQUEST", f"content is str or bytes, not {type(content).__name__}.")
    try:
        return content.encode(_codec(encoding))
    except UnicodeEncodeError as problem:
        raise error("INVALID_REQUEST", f"content cannot be written as {encoding}: {problem.reason}.") from problem


def _decode(content: bytes, codec: str, path: str) -> str:
    try:
        return content.decode(codec)
    except UnicodeDecodeError as problem:
        raise error(
            "INVALID_REQUEST",
            f"{path} is not {codec} text (byte {problem.start}).",
            remedy="Read it as bytes with `encoding=None`.",
        ) from problem
