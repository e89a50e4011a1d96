"""Kernel channels over any number of sleeps, and what a hostile agent can do to them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from hypothesis import given
from hypothesis import strategies as st
from manager_parts import MINE, SUBPROTOCOL, InProcess
from stand_in_agent import frame

from jupyter_sandbox.errors import InvalidInput
from jupyter_sandbox.manager.channel_frames import is_work, message_type

EXECUTE = frame("execute_request", "1+1")
COMPLETE = frame("complete_request", "pri")


@pytest.fixture
async def running(manager: InProcess) -> InProcess:
    await manager.caller.put("a")
    return manager


@pytest.fixture
async def channel(running: InProcess) -> AsyncIterator[ClientWebSocketResponse]:
    async with await running.caller.channel("a") as opened:
        yield opened


async def _sleep(manager: InProcess) -> None:
    status, body = await manager.caller.ask("POST", "a/sleep", {})
    assert status == 200, body


def test_the_type_of_a_message_is_read_from_its_header_alone() -> None:
    assert message_type(frame("comm_msg", '{"msg_type": "other"}')) == "comm_msg"
    assert [is_work(frame(name)) for name in ("execute_request", "input_reply", "comm_msg")] == [True] * 3
    assert not any(is_work(frame(name)) for name in ("complete_request", "comm_open", "kernel_info_request", ""))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        message_type(data)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8), st.binary(max_size=100))
def test_offsets_that_lead_nowhere_are_refused(offsets: list[int], rest: bytes) -> None:
    with pytest.raises(InvalidInput):
        message_type(struct.pack(f"<{len(offsets)}Q", *offsets) + rest)


async def test_frames_pass_unchanged_in_both_directions(channel: ClientWebSocketResponse) -> None:
    big = frame("execute_request", "x" * 20_000_000)
    for each in (EXECUTE, COMPLETE, big):
        await channel.send_bytes(each)
        assert await channel.receive_bytes() == each


async def test_the_channel_stays_open_over_a_sleep_and_work_wakes_it(
    running: InProcess, channel: ClientWebSocketResponse
) -> None:
    await _sleep(running)
    await channel.send_bytes(EXECUTE)
    assert await channel.receive_bytes(timeout=5) == EXECUTE
    assert running.actor("a").state == "running"


async def test_an_open_channel_does_not_keep_it_awake(
    running: InProcess, channel: ClientWebSocketResponse, eventually: Callable[..., Any]
) -> None:
    await running.caller.put("a", sleep_after=0.05)
    await eventually(lambda: running.actor("a").state == "sleeping")
    await channel.ping()
    assert not channel.closed


async def test_looking_frames_wait_until_somebody_wakes_it_and_keep_their_order(
    running: InProcess, channel: ClientWebSocketResponse
) -> None:
    await _sleep(running)
    frames = [frame("complete_request", str(number)) for number in range(20)]
    for each in frames:
        await channel.send_bytes(each)
    with pytest.raises(TimeoutError):
        await channel.receive(timeout=0.2)
    assert running.actor("a").state == "sleeping"
    await channel.send_bytes(EXECUTE)
    assert [await channel.receive_bytes(timeout=5) for _ in range(21)] == [*frames, EXECUTE]


async def test_looking_frames_are_delivered_when_another_request_wakes_it(
    running: InProcess, channel: ClientWebSocketResponse
) -> None:
    await _sleep(running)
    await channel.send_bytes(COMPLETE)
    await running.caller.exec("a", "echo")
    assert await channel.receive_bytes(timeout=5) == COMPLETE


async def test_too_many_waiting_frames_close_the_channel(running: InProcess, channel: ClientWebSocketResponse) -> None:
    await _sleep(running)
    for _ in range(101):
        await channel.send_bytes(COMPLETE)
    assert (await channel.receive(timeout=5)).data == 1013
    assert running.actor("a").state == "sleeping"


async def test_it_closes_with_4410_when_the_runtime_ends_and_with_4404_when_destroyed(running: InProcess) -> None:
    async with await running.caller.channel("a") as first:
        await running.caller.exec("a", "die")
        message = await first.receive(timeout=5)
        assert (message.data, message.extra) == (4410, "it exited of itself")
    await running.caller.put("a")
    async with await running.caller.channel("a") as second:
        await running.caller.ask("DELETE", "a")
        assert (await second.receive(timeout=5)).data == 4404


async def test_opening_a_channel_is_looking(running: InProcess) -> None:
    await _sleep(running)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await running.caller.channel("a")
    assert refused.value.status == 409
    assert running.actor("a").state == "sleeping"


async def test_an_unknown_kernel_and_another_protocol_are_refused_before_the_upgrade(running: InProcess) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as unknown:
        await running.caller.channel("a", "unknown")
    assert unknown.value.status == 404
    with pytest.raises(aiohttp.WSServerHandshakeError) as other:
        await running.caller.session.ws_connect(f"{MINE}a/agent/api/kernels/k/channels", protocols=("other",))
    assert other.value.status == 400
    status, body = await running.caller.ask("GET", "a/agent/api/kernels/k/channels")
    assert (status, body["error"]["code"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("sent", [b"", b"nonsense", struct.pack("<Q", 2**63)])
async def test_a_frame_that_is_no_message_closes_the_channel(channel: ClientWebSocketResponse, sent: bytes) -> None:
    await channel.send_bytes(sent)
    assert (await channel.receive(timeout=5)).type is WSMsgType.CLOSE


async def test_a_text_frame_closes_the_channel(channel: ClientWebSocketResponse) -> None:
    await channel.send_str("hello")
    assert (await channel.receive(timeout=5)).data == 1003


@pytest.mark.parametrize(
    ("does", "code"),
    [("say text", 1011), ("say too much", 1011), ("close with 4404", 1011), ("close with 4000", 4000)],
)
async def test_a_hostile_agent_ends_its_own_channel_and_nothing_else(
    running: InProcess, channel: ClientWebSocketResponse, does: str, code: int
) -> None:
    async with await running.caller.channel("a", "other") as another:
        await channel.send_bytes(frame("execute_request", does))
        assert (await channel.receive(timeout=10)).data == code
        await another.send_bytes(EXECUTE)
        assert await another.receive_bytes(timeout=5) == EXECUTE


async def test_a_client_that_does_not_read_holds_only_its_own_channel_back(
    running: InProcess, channel: ClientWebSocketResponse
) -> None:
    big = frame("execute_request", "x" * 10_000_000)
    for _ in range(3):
        await channel.send_bytes(big)
    async with await running.caller.channel("a", "other") as another:
        await another.send_bytes(EXECUTE)
        assert await another.receive_bytes(timeout=10) == EXECUTE
    assert channel.protocol == SUBPROTOCOL


async def test_a_client_that_goes_away_ends_its_channel_to_the_agent(
    running: InProcess, eventually: Callable[..., Any]
) -> None:
    before = {task.get_name() for task in asyncio.all_tasks()}
    async with await running.caller.channel("a"):
        pass
    await eventually(lambda: len({task.get_name() for task in asyncio.all_tasks()} - before) <= 1)
    assert running.actor("a").activity.in_flight == 0
