"""Jupyter messages as WebSocket frames: the subprotocol ``v1.kernel.websocket.jupyter.org``.

A frame is: the number of offsets, the offsets (each 8 bytes, little endian), then the channel's name, header, parent
header, metadata, content and buffers. What comes from a sandbox is not trusted: every offset and type is checked.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from ..errors import error

SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
MAX_FRAME = 80 * 1024**2
"""Bytes of one frame (docs/protocol.md)."""

CHANNELS = frozenset({"shell", "control", "iopub", "stdin"})
_MAX_PARTS = 1024
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Message:
    """One Jupyter message. ``buffers`` are views into the frame that it came in."""

    channel: str
    header: dict[str, Any]
    parent_header: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: tuple[bytes | memoryview, ...] = ()
    size: int = field(default=0, repr=False, compare=False)

    @property
    def msg_type(self) -> str:
        """The type, for example ``"stream"``."""
        return str(self.header["msg_type"])

    @property
    def msg_id(self) -> str:
        """The id that answers name as their parent."""
        return str(self.header["msg_id"])

    @property
    def parent_id(self) -> str | None:
        """The ``msg_id`` of the request that this message belongs to."""
        return self.parent_header.get("msg_id")


def new_header(msg_type: str, session: str) -> dict[str, Any]:
    """A fresh header."""
    return {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "username": "sandbox",
        "session": session,
        "date": datetime.now(UTC).isoformat(),
        "version": "5.3",
    }


def encode(
    channel: str,
    header: Mapping[str, Any],
    content: Mapping[str, Any],
    *,
    parent: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    buffers: Iterable[bytes | bytearray | memoryview] = (),
) -> bytes:
    """One frame.

    Raises
    ------
    InvalidInput
        ``INVALID_REQUEST`` if something is not JSON, or the channel is none.
    Denied
        ``TOO_LARGE`` if the frame has more than :data:`MAX_FRAME` bytes.
    """
    if channel not in CHANNELS:
        raise error("INVALID_REQUEST", f"There is no channel {channel!r}.")
    try:
        texts = [json.dumps(part).encode() for part in (header, parent or {}, metadata or {}, content)]
    except (TypeError, ValueError, RecursionError) as problem:
        raise error("INVALID_REQUEST", f"The message is not JSON: {problem}.") from problem
    parts = [channel.encode(), *texts, *buffers]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + (part.nbytes if isinstance(part, memoryview) else len(part)))
    if offsets[-1] > MAX_FRAME:
        raise error("TOO_LARGE", f"The message has {offsets[-1]} bytes, more than {MAX_FRAME}.")
    return b"".join([_number(len(offsets)), *map(_number, offsets), *parts])


def decode(frame: bytes) -> Message:
    """Read one frame.

    Raises
    ------
    Failed
        ``OUTPUT_INVALID``: offsets out of order, no JSON, wrong types, unknown channel.
    """
    view = memoryview(frame)
    try:
        parts = _split(view)
        channel = bytes(parts[0]).decode("ascii")
        header, parent, metadata, content = map(_read_json, parts[1:5])
    except (ValueError, RecursionError) as problem:
        raise error("OUTPUT_INVALID", f"The sandbox sent a message that cannot be read: {problem}.") from problem
    _check(channel, header, parent)
    return Message(channel, header, parent, metadata, content, tuple(parts[5:]), len(frame))


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _split(view: memoryview) -> list[memoryview]:
    count = int.from_bytes(view[:8], "little")
    if not 6 <= count <= _MAX_PARTS or len(view) < 8 * (count + 1):
        raise ValueError("wrong number of offsets")
    offsets = [int.from_bytes(view[8 * i : 8 * i + 8], "little") for i in range(1, count + 1)]
    if offsets[0] < 8 * (count + 1) or offsets != sorted(offsets) or offsets[-1] > len(view):
        raise ValueError("offsets out of order")
    return [view[start:end] for start, end in pairwise(offsets)]


def _read_json(part: memoryview) -> dict[str, Any]:
    text = bytes(part).decode("utf-8", "replace")
    value = json.loads(text)
    if _SURROGATE.search(text):
        # A lone surrogate would break whoever encodes the text later; pairs are joined by json already.
        repaired = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        value = json.loads(repaired.decode("utf-16-le", "replace"))
    if not isinstance(value, dict):
        raise ValueError("a part is not an object")
    return value


def _check(channel: str, header: dict[str, Any], parent: dict[str, Any]) -> None:
    if channel not in CHANNELS:
        raise error("OUTPUT_INVALID", f"The sandbox sent a message on the unknown channel {channel[:40]!r}.")
    for name in ("msg_id", "msg_type"):
        if not isinstance(header.get(name), str):
            raise error("OUTPUT_INVALID", f"The sandbox sent a message whose header has no {name}.")
    if not isinstance(parent.get("msg_id", ""), str):
        raise error("OUTPUT_INVALID", "The sandbox sent a message whose parent has an id that is not text.")
