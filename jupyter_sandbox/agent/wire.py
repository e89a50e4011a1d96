"""Jupyter messages as bytes: signing, the WebSocket frame, and the bounds on what goes to a client.

What only passes through is never decoded: a message is its four JSON parts (header, parent header, metadata,
content) and its buffers, as they came.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
import uuid
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

Part = Union[bytes, memoryview]

DELIMITER = b"<IDS|MSG>"
CHANNELS = ("shell", "control", "stdin")
"""Channels on which a client may send."""

STREAM_PIECE = 2**20
"""Bytes of text in one stream message to a client; ipykernel joins what it can into messages of 100 MB and more."""

MESSAGE_MAX = 64 * 2**20
"""Bytes of any other message to a client."""

FRAME_MAX = 80 * 2**20
"""Bytes of a frame from a client."""

_MAX_PARTS = 10_000


def signed(key: bytes, parts: Sequence[Part]) -> List[Part]:
    """A message as it goes over ZMQ to a kernel."""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts[:4]:
        digest.update(part)
    return [DELIMITER, digest.hexdigest().encode(), *parts]


def unsigned(frames: Sequence[bytes]) -> Optional[List[bytes]]:
    """The parts of a message that came over ZMQ from a kernel; None if it is not one.

    The signature is not checked: the sockets lie in a directory of the sandbox's user, who is one with the kernel.
    """
    try:
        start = frames.index(DELIMITER) + 2
    except ValueError:
        return None
    parts = list(frames[start:])
    return parts if len(parts) >= 4 else None


def message(msg_type: str, content: Mapping[str, Any], parent: Part = b"{}") -> List[Part]:
    """A message of our own, as parts."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "username": "sandbox",
        "session": "agent",
        "date": datetime.now(timezone.utc).isoformat(),
        "version": "5.4",
    }
    return [json.dumps(header).encode(), parent, b"{}", json.dumps(content).encode()]


def to_frame(channel: str, parts: Sequence[Part]) -> bytes:
    """A message as one binary WebSocket frame (``v1.kernel.websocket.jupyter.org``)."""
    name = channel.encode()
    offsets = [8 * (len(parts) + 3)]
    for part in (name, *parts):
        offsets.append(offsets[-1] + len(part))
    return b"".join((struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets), name, *parts))


def from_frame(frame: bytes) -> Tuple[str, List[Part]]:
    """Undo :func:`to_frame` for a frame from a client; raises ``ValueError`` saying what is wrong with it."""
    count = int.from_bytes(frame[:8], "little")
    if not 6 <= count <= _MAX_PARTS or len(frame) < 8 * (count + 1):
        raise ValueError("the frame is not of v1.kernel.websocket.jupyter.org")
    offsets = struct.unpack_from(f"<{count}Q", frame, 8)
    in_order = all(a <= b for a, b in zip(offsets, offsets[1:]))
    if not in_order or offsets[0] < 8 * (count + 1) or offsets[-1] > len(frame):
        raise ValueError("the frame's offsets do not lie in the frame")
    channel = frame[offsets[0] : offsets[1]].decode("ascii", "replace")
    if channel not in CHANNELS:
        raise ValueError(f"there is no channel {channel[:20]!r} to send on")
    view = memoryview(frame)
    parts: List[Part] = [view[a:b] for a, b in zip(offsets[1:], offsets[2:])]
    if not isinstance(_json(parts[0]), dict):
        raise ValueError("the message's header is not a JSON object")
    return channel, parts


def header_of(parts: Sequence[Part]) -> Dict[str, Any]:
    """The header of a message, decoded; empty if it is not what it should be."""
    header = _json(parts[0])
    return header if isinstance(header, dict) else {}


def content_of(parts: Sequence[Part]) -> Dict[str, Any]:
    """The content of a message, decoded; empty if it is not what it should be."""
    content = _json(parts[3])
    return content if isinstance(content, dict) else {}


def frames(channel: str, parts: Sequence[Part]) -> Iterator[bytes]:
    """A kernel's message as frames for a client: itself, or its pieces, or a line that says why it is not there."""
    size = sum(map(len, parts))
    if size > STREAM_PIECE and (span := _stream_text(parts)) is not None:
        yield from _pieces(channel, parts, span)
    elif size > MESSAGE_MAX:
        yield from _instead(channel, parts, size)
    else:
        yield to_frame(channel, parts)


def _json(part: Part) -> Any:
    try:
        return json.loads(bytes(part))
    except ValueError:
        return None


# --- a message that is too long ------------------------------------------------------------------------

_BEFORE_TEXT = re.compile(rb'\s*\{\s*"name"\s*:\s*"(?:stdout|stderr)"\s*,\s*"text"\s*:\s*"')
_AFTER_TEXT = re.compile(rb'"\s*\}\s*\Z')


def _stream_text(parts: Sequence[Part]) -> Optional[Tuple[int, int]]:
    """Where the text lies in the content of a stream message, still as JSON; None for anything else.

    Kernels write the name first, which JSON libraries that keep or sort keys agree on. Decoding 100 MB of text
    to cut it would hold up everything else in the agent.
    """
    if header_of(parts).get("msg_type") != "stream":
        return None
    content = bytes(parts[3])
    before, after = _BEFORE_TEXT.match(content), _AFTER_TEXT.search(content, max(0, len(content) - 64))
    return (before.end(), after.start()) if before and after and before.end() <= after.start() else None


def _pieces(channel: str, parts: Sequence[Part], span: Tuple[int, int]) -> Iterator[bytes]:
    content, header = bytes(parts[3]), header_of(parts)
    start, stop = span
    begin, number, own_id = content[:start], 0, str(header.get("msg_id", ""))
    while start < stop:
        cut = _safe_cut(content, start, min(start + STREAM_PIECE, stop), stop)
        head = json.dumps({**header, "msg_id": f"{own_id}_{number}"}).encode()
        yield to_frame(channel, [head, parts[1], parts[2], b'%b%b"}' % (begin, content[start:cut])])
        start, number = cut, number + 1


def _safe_cut(text: bytes, start: int, cut: int, stop: int) -> int:
    r"""The last place up to ``cut`` where the inside of a JSON string can be cut.

    Not inside a UTF-8 character, an escape (``\n``, ``\u00e9``) or a surrogate pair (``\ud83d\ude00``).
    """
    if cut >= stop:
        return stop
    wanted = cut
    while cut > start and text[cut] & 0xC0 == 0x80:
        cut -= 1
    for place in range(cut - 1, max(start, wanted - 16) - 1, -1):
        if text[place] == 0x5C and _starts_escape(text, start, place) and place + _escape_length(text, place) > cut:
            cut = place
    return cut if cut > start else wanted


def _starts_escape(text: bytes, start: int, place: int) -> bool:
    before = text[start:place]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0


def _escape_length(text: bytes, place: int) -> int:
    if text[place + 1 : place + 2] != b"u":
        return 2
    high = text[place + 2 : place + 4].lower() in (b"d8", b"d9", b"da", b"db")
    return 12 if high and text[place + 6 : place + 8] == b"\\u" else 6


def _instead(channel: str, parts: Sequence[Part], size: int) -> Iterator[bytes]:
    """A line in place of a message; a reply is still a reply, because somebody waits for it."""
    header = header_of(parts)
    kind = str(header.get("msg_type", "message"))[:50]
    text = f"[sandbox] A {kind} of {size / 2**20:.0f} MiB was left out: the limit is {MESSAGE_MAX // 2**20} MiB.\n"
    yield to_frame("iopub", message("stream", {"name": "stderr", "text": text}, parts[1]))
    if channel != "iopub":
        content = {"status": "error", "ename": "TooLarge", "evalue": text.strip(), "traceback": []}
        yield to_frame(channel, [parts[0], parts[1], b"{}", json.dumps(content).encode()])
