"""What passes between a caller and an agent over HTTP, and what does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manager_parts import MINE, InProcess

from jupyter_sandbox.manager.agent_routes import ROUTES, clean_query, match


@pytest.fixture
async def running(manager: InProcess) -> InProcess:
    await manager.caller.put("a")
    return manager


async def test_no_login_goes_in_and_no_cookie_redirect_or_permission_comes_out(running: InProcess, place: Path) -> None:
    (place / "f").write_bytes(b"<script>")
    secret = {"Cookie": "c=1", "Authorization": "token t", "X-XSRFToken": "x", "Range": "bytes=0-"}
    url = f"{MINE}a/agent/files?token=secret&path={place / 'f'}&to%6ben=secret"
    async with running.caller.session.get(url, headers=secret) as answer:
        assert await answer.read() == b"<script>"
        for name in ("Set-Cookie", "Location", "Access-Control-Allow-Origin", "Service-Worker-Allowed", "X-Seen"):
            assert name not in answer.headers
        assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Disposition"] == "attachment"
    (seen,) = (json.loads(line) for line in (await running.caller.agent_status("a"))["seen"])
    assert seen["query"] == f"path={place / 'f'}"
    assert set(seen["headers"]) == {"Host", "Accept", "Accept-Encoding", "Range"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "ports/8000/"),
        ("PUT", "env"),
        ("GET", "api/kernels/../../env"),
        ("GET", "api/kernels/%2e%2e"),
        ("GET", "api%2Fkernels"),
        ("GET", "api/kernels/a%2Fb"),
        ("GET", "api/kernels/.."),
        ("GET", "//status"),
        ("GET", "status/"),
        ("POST", "status"),
        ("DELETE", "exec"),
        ("GET", ""),
        ("TRACE", "status"),
    ],
)
async def test_what_is_not_in_the_table_reaches_no_agent(running: InProcess, method: str, path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(running.services.sockets / "m.sock")
    head = f"{method} /sandboxes/-/a/agent/{path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    assert b" 404 " in answer.splitlines()[0]
    assert b"ROUTE_NOT_FOUND" in answer


@given(st.text(alphabet="abc./%~-_", max_size=40))
def test_no_path_with_dots_or_percent_signs_matches(path: str) -> None:
    for start in ("", "api/kernels/", "files/", "api/kernelspecs/"):
        if match("GET", start + path) is not None:
            assert "%" not in path
            assert not {".", ".."} & set((start + path).split("/"))


def test_reading_a_file_is_work_and_every_other_get_looks() -> None:
    for route in ROUTES:
        assert route.looking == ({"GET"} if route.kind != "files" else set())


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5))))
def test_a_query_passes_as_it_came_but_for_the_token(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import parse_qsl, urlencode

    kept = [pair for pair in pairs if pair[0] != "token"]
    assert parse_qsl(clean_query(urlencode(pairs)), keep_blank_values=True) == kept


async def test_a_caller_who_goes_away_ends_what_the_agent_does_for_him(
    running: InProcess, eventually: Callable[..., Any]
) -> None:
    async with running.caller.session.post(f"{MINE}a/agent/exec", json={"command": "hold"}) as answer:
        await answer.content.readline()

    async def has_ended() -> bool:
        return (await running.caller.agent_status("a"))["holds"] == 1

    await eventually(has_ended)
    assert running.actor("a").activity.in_flight == 0


async def test_a_caller_who_goes_away_in_a_download_leaves_no_traceback(
    running: InProcess, place: Path, eventually: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with (place / "large").open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    async with running.caller.session.get(f"{MINE}a/agent/files?path={place / 'large'}") as answer:
        await answer.content.readany()
        answer.close()

    async def is_over() -> bool:
        return running.actor("a").activity.in_flight == 0

    await eventually(is_over)
    assert not [record for record in caplog.records if record.exc_info]


async def test_output_arrives_as_it_is_written(running: InProcess) -> None:
    url = f"{MINE}a/agent/exec"
    async with running.caller.session.post(url, json={"command": "hold first"}) as answer:
        assert json.loads(await answer.content.readline())["data"] == "first"


async def test_an_answer_that_is_torn_in_a_line_ends_with_the_error(running: InProcess) -> None:
    async with running.caller.session.post(f"{MINE}a/agent/exec", json={"command": "torn"}) as answer:
        lines = (await answer.text()).splitlines()
    assert json.loads(lines[-1])["error"]["code"] == "AGENT_UNREACHABLE"


async def test_a_file_that_is_torn_is_not_taken_for_a_whole_one(running: InProcess) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        async with running.caller.session.get(f"{MINE}a/agent/files?path=torn") as answer:
            await answer.read()


async def test_a_large_upload_streams_through_without_being_kept(running: InProcess) -> None:
    size = 64 * 1024 * 1024

    async def body() -> Any:
        for _ in range(64):
            yield bytes(1024 * 1024)

    headers = {"Content-Length": str(size)}
    async with running.caller.session.put(f"{MINE}a/agent/files?path=x", data=body(), headers=headers) as answer:
        assert answer.status == 204
        assert "X-Size" not in answer.headers
    assert (await running.caller.agent_status("a"))["seen"] == [f"uploaded {size}"]


async def test_a_caller_who_does_not_read_holds_the_agent_back(running: InProcess, place: Path) -> None:
    (place / "big").write_bytes(bytes(64 * 1024 * 1024))
    async with running.caller.session.get(f"{MINE}a/agent/files?path={place / 'big'}") as answer:
        await answer.content.readexactly(1024)
        before = _anonymous_memory()
        await asyncio.sleep(0.3)
        assert _anonymous_memory() - before < 32 * 1024 * 1024


def _anonymous_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
