"""Jupyter messages as frames: what is written is read, and nothing that a sandbox sends breaks the reader."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1, serialize_msg_to_ws_v1

from jupyter_sandbox.client.wire import CHANNELS, MAX_FRAME, decode, encode, new_header
from jupyter_sandbox.errors import Failed, SandboxError

text = st.text(st.characters(exclude_categories=["Cs"]))
json_objects = st.dictionaries(
    text,
    st.recursive(st.none() | st.booleans() | st.integers() | text, lambda kids: st.lists(kids), max_leaves=5),
    max_size=4,
)


@given(
    channel=st.sampled_from(sorted(CHANNELS)),
    content=json_objects,
    metadata=json_objects,
    buffers=st.lists(st.binary(max_size=50), max_size=4),
)
def test_what_is_encoded_is_decoded(channel, content, metadata, buffers):
    header, parent = new_header("x", "s"), new_header("y", "s")
    message = decode(encode(channel, header, content, parent=parent, metadata=metadata, buffers=buffers))
    assert (message.channel, message.header, message.parent_header) == (channel, header, parent)
    assert (message.content, message.metadata) == (content, metadata)
    assert [bytes(buffer) for buffer in message.buffers] == buffers


@given(content=json_objects, buffers=st.lists(st.binary(max_size=20), max_size=3))
def test_frames_are_those_of_a_jupyter_server(content, buffers):
    header = new_header("x", "s")
    parts = [json.dumps(part).encode() for part in (header, {}, {}, content)] + buffers
    assert encode("shell", header, content, buffers=buffers) == serialize_msg_to_ws_v1(parts, "shell")
    channel, read = deserialize_msg_from_ws_v1(encode("shell", header, content, buffers=buffers))
    assert (channel, read) == ("shell", parts)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(frame):
    with pytest.raises(SandboxError) as caught:
        decode(frame)
    assert caught.value.code == "OUTPUT_INVALID"


@given(st.data())
def test_a_damaged_frame_is_read_or_refused_but_nothing_else(data):
    frame = bytearray(encode("iopub", new_header("stream", "s"), {"text": "é"}, buffers=[b"12"]))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Failed):
        message = decode(bytes(frame))
        assert message.channel in CHANNELS
        assert isinstance(message.msg_type, str)
        assert isinstance(message.content, dict)


def frame_of(header="{}", parent="{}", metadata="{}", content="{}", channel="iopub"):
    parts = [part if isinstance(part, bytes) else part.encode() for part in (header, parent, metadata, content)]
    return serialize_msg_to_ws_v1(parts, channel)


GOOD = json.dumps(new_header("stream", "s"))


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(),
        frame_of(header='{"msg_id": 1, "msg_type": "stream"}'),
        frame_of(header='{"msg_id": "1", "msg_type": ["stream"]}'),
        frame_of(header=GOOD, parent='{"msg_id": {}}'),
        frame_of(header=GOOD, parent="[]"),
        frame_of(header=GOOD, content="null"),
        frame_of(header=GOOD, content="[" * 100_000),
        frame_of(header=GOOD, content='{"a": ' + "9" * 5000 + "}"),
        frame_of(header=GOOD, channel="other"),
        frame_of(header=GOOD)[:-1],
        b"",
        b"\xff" * 8,
    ],
)
def test_wrong_types_and_offsets_are_refused(frame):
    with pytest.raises(SandboxError, match="sandbox sent") as caught:
        decode(frame)
    assert caught.value.code == "OUTPUT_INVALID"


def test_broken_utf_8_and_lone_surrogates_become_replacement_characters():
    bad = b'{"text": "\xff\\ud800 \\ud83d\\ude00"}'
    text = decode(frame_of(header=GOOD, content=bad)).content["text"]
    assert text == "\ufffd\ufffd \U0001f600"
    text.encode()


def test_a_frame_that_is_too_large_is_not_sent():
    with pytest.raises(SandboxError) as caught:
        encode("shell", {}, {}, buffers=[memoryview(bytearray(MAX_FRAME))])
    assert caught.value.code == "TOO_LARGE"


@pytest.mark.parametrize("content", [{"a": object()}, {"a": {1, 2}}])
def test_what_is_not_json_is_not_sent(content):
    with pytest.raises(SandboxError, match="not JSON"):
        encode("shell", {}, content)


def test_an_unknown_channel_is_not_sent_to():
    with pytest.raises(SandboxError, match="no channel 'sehll'"):
        encode("sehll", {}, {})
