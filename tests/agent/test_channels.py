"""The WebSocket of a kernel: its frames, what is too long for it, and what a hostile end of it can do."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)

from jupyter_sandbox.agent import wire

from .conftest import PROTOCOL, Agent, text


@given(st.lists(st.binary(max_size=50), min_size=4, max_size=9), st.sampled_from(wire.CHANNELS))
def test_frames_are_those_of_jupyter_server(parts: list[bytes], channel: str) -> None:
    frame = wire.to_frame(channel, parts)
    assert frame == serialize_msg_to_ws_v1(parts, channel)
    name, found = deserialize_msg_from_ws_v1(frame)
    assert (name, found) == (channel, parts)
    parts[0] = b'{"msg_id": "1"}'
    name, again = wire.from_frame(wire.to_frame(channel, parts))
    assert (name, [bytes(part) for part in again]) == (channel, parts)


@given(st.binary(max_size=300))
def test_no_frame_of_junk_is_more_than_a_value_error(junk: bytes) -> None:
    for frame in (junk, struct.pack("<Q", 6) + junk, wire.to_frame("shell", [junk] * 4)):
        with contextlib.suppress(ValueError):
            wire.from_frame(frame)


def texts_of(frames: list[bytes]) -> list[str]:
    contents = []
    for frame in frames:
        _channel, parts = deserialize_msg_from_ws_v1(frame)
        assert json.loads(parts[0])["msg_type"] == "stream"
        content = json.loads(parts[3].decode("utf-8"))
        assert content["name"] == "stdout"
        contents.append(content["text"])
    return contents


TEXT = st.lists(st.one_of(st.text(), st.sampled_from(["\\", '"', "\n", "é", "€", "😀", "\x1b[0m", "\\u00e9"]))).map(
    "".join
)


@settings(max_examples=300)
@given(TEXT.filter(bool), st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")]), st.integers(16, 40))
def test_a_long_stream_is_cut_where_json_and_utf8_allow(
    text: str, ascii_only: bool, separators: tuple[str, str], piece: int
) -> None:
    content = json.dumps({"name": "stdout", "text": text}, ensure_ascii=ascii_only, separators=separators)
    parts = [b'{"msg_type": "stream", "msg_id": "m"}', b"{}", b"{}", content.encode()]
    before = wire.STREAM_PIECE
    wire.STREAM_PIECE = piece
    try:
        pieces = texts_of(list(wire.frames("iopub", parts)))
    finally:
        wire.STREAM_PIECE = before
    assert "".join(pieces) == text
    assert all(len(json.dumps(p, ensure_ascii=ascii_only).encode()) - 2 <= piece for p in pieces)


def test_a_message_that_only_looks_like_a_stream_is_passed_or_left_out_as_a_whole() -> None:
    content = json.dumps({"text": "x" * 2**21, "name": "stdout"}).encode()
    parts = [b'{"msg_type": "stream"}', b"{}", b"{}", content]
    assert list(wire.frames("iopub", parts)) == [wire.to_frame("iopub", parts)]


def test_a_reply_that_is_too_long_is_still_a_reply() -> None:
    header, parent = b'{"msg_type": "execute_reply"}', b'{"msg_id": "asked"}'
    line, reply = wire.frames("shell", [header, parent, b"{}", b"x" * (wire.MESSAGE_MAX + 1)])
    channel, parts = deserialize_msg_from_ws_v1(reply)
    assert (channel, parts[0], parts[1]) == ("shell", header, parent)
    assert json.loads(parts[3])["status"] == "error"
    channel, parts = deserialize_msg_from_ws_v1(line)
    assert (channel, parts[1]) == ("iopub", parent)
    assert "64 MiB" in json.loads(parts[3])["text"]


async def test_a_stream_of_many_megabytes_comes_whole_in_pieces_of_one(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        messages = await channel.run("import sys; t = 'äöü€😀\\n\\\\' * 300_000; n = sys.stdout.write(t); n")
        streams = [m for m in messages if m["type"] == "stream"]
        assert text(messages) == "äöü€😀\n\\" * 300_000
        assert len(streams) > 4
        assert max(m["size"] for m in streams) < 2**20 + 2000
        assert len({m["header"]["msg_id"] for m in streams}) == len(streams)
        assert len({m["parent"] for m in streams}) == 1


async def test_a_display_of_more_than_64_mib_becomes_a_line_that_says_so(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        code = "from IPython.display import display; display({'text/plain': 'x' * (65 * 2**20)}, raw=True); print('on')"
        messages = await channel.run(code)
        assert [m for m in messages if m["type"] == "display_data"] == []
        assert "display_data of 65 MiB was left out" in text(messages, "stderr")
        assert text(messages) == "on\n"
        allowed = await channel.run("display({'text/plain': 'x' * (60 * 2**20)}, raw=True)")
        assert [m["size"] > 60 * 2**20 for m in allowed if m["type"] == "display_data"] == [True]


WRONG_FRAMES = [
    b"",
    b"junk",
    struct.pack("<Q", 2**63) + b"x" * 100,
    struct.pack("<7Q", 6, 0, 5, 10, 15, 20, 25) + b"x" * 100,
    struct.pack("<7Q", 6, 56, 61, 70, 60, 70, 80) + b"x" * 100,
    wire.to_frame("iopub", [b"{}"] * 4),
    wire.to_frame("hb", [b"{}"] * 4),
    wire.to_frame("shell", [b"not json", b"{}", b"{}", b"{}"]),
    wire.to_frame("shell", [b"[]", b"{}", b"{}", b"{}"]),
    wire.to_frame("shell", [b"{}"] * 3),
]


async def test_a_wrong_frame_closes_its_channel_and_nothing_else(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as good:
        for frame in WRONG_FRAMES:
            async with agent.channel(kernel["id"]) as bad:
                await bad.ws.send_bytes(frame)
                assert await bad.closed() == 1007, frame
        assert text(await good.run("print('on')")) == "on\n"


async def test_a_text_frame_closes_the_channel(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        await channel.ws.send_str("{}")
        assert await channel.closed() == 1003


async def test_a_message_that_the_kernel_does_not_understand_harms_nobody(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        for parts in ([b'{"msg_type": 5}', b"no", b"no", b"no"], [b"{}", b"[]", b"1", b"null"]):
            await channel.ws.send_bytes(wire.to_frame("shell", parts))
        await channel.run("1")


@pytest.mark.parametrize("protocols", [(), ("other",)])
async def test_only_the_one_subprotocol_is_spoken(agent: Agent, protocols: tuple[str, ...]) -> None:
    kernel = await agent.kernel()
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await agent.session.ws_connect(f"http://agent/api/kernels/{kernel['id']}/channels", protocols=protocols)
    assert caught.value.status == 400


async def test_a_channel_of_no_kernel_is_404(agent: Agent) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await agent.session.ws_connect("http://agent/api/kernels/none/channels", protocols=[PROTOCOL])
    assert caught.value.status == 404


async def test_a_channel_to_a_kernel_that_welcomes_nobody_is_live_as_well(agent: Agent) -> None:
    silence = "import ipykernel.iostream as i; i.IOPubThread._send_welcome_message = lambda *_: None"
    launch = "from ipykernel.kernelapp import launch_new_instance as launch; launch()"
    directory = agent.home / ".local/share/jupyter/kernels/old"
    directory.mkdir(parents=True)
    spec = {"argv": ["python", "-c", f"{silence}; {launch}", "-f", "{connection_file}"], "language": "old"}
    (directory / "kernel.json").write_text(json.dumps(spec))
    kernel = await agent.kernel(language="old")
    for _ in range(3):
        async with agent.channel(kernel["id"]) as channel:
            messages = await channel.run("print('hi')")
            assert text(messages) == "hi\n"
            assert "execute_input" in [m["type"] for m in messages]


async def test_closed_channels_leave_nothing_open_in_the_agent(agent: Agent) -> None:
    kernel = await agent.kernel()
    fds = Path(f"/proc/{agent.process.pid}/fd")
    async with agent.channel(kernel["id"]) as channel:
        await channel.run("1")
        most = len(list(fds.iterdir()))
    for _ in range(10):
        async with agent.channel(kernel["id"]) as channel:
            await channel.run("1")
    async with agent.channel(kernel["id"]):
        assert len(list(fds.iterdir())) <= most + 2
    while (await agent.call("GET", f"/api/kernels/{kernel['id']}", 200))["connections"]:
        pass
