"""Reads as little as possible of a kernel message on the wire: whether it is work, or looks.

The layout of ``v1.kernel.websocket.jupyter.org``: a 64-bit little-endian count of offsets, the offsets, then the
channel's name, header, parent header, metadata, content and buffers, each up to the next offset.
"""

from __future__ import annotations

import json
import struct

from ..errors import error

SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
MAX_FRAME = 80 * 1024 * 1024
"""Bytes of one frame, in either direction."""

WORK = frozenset({"execute_request", "input_reply", "comm_msg"})
"""The messages that wake a sandbox and count as activity."""

_MAX_OFFSETS = 100_000
_MAX_HEADER = 64 * 1024


def message_type(frame: bytes) -> str:
    """The ``msg_type`` of a frame that a client sent.

    Raises
    ------
    InvalidInput
        ``INVALID_REQUEST`` if it is not a frame of the subprotocol.
    """
    try:
        (count,) = struct.unpack_from("<Q", frame)
        if not 3 <= count <= _MAX_OFFSETS:
            raise ValueError(f"{count} offsets")
        start, end = struct.unpack_from("<2Q", frame, 16)
        if not 8 * (count + 1) <= start <= end <= len(frame) or end - start > _MAX_HEADER:
            raise ValueError("offsets out of the frame")
        return str(json.loads(frame[start:end])["msg_type"])
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise error("INVALID_REQUEST", f"Not a frame of {SUBPROTOCOL}: {exc}") from exc


def is_work(frame: bytes) -> bool:
    """Whether a client's frame wakes the sandbox and counts; raises as :func:`message_type`."""
    return message_type(frame) in WORK
