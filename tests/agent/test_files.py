"""Files: streamed, atomic, and with an error of the family for everything that can go wrong."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jupyter_sandbox import models

from .conftest import Agent, names_in


async def fails(agent: Agent, method: str, path: str, code: str, **more: Any) -> dict[str, Any]:
    async with agent.session.request(method, f"http://agent{path}", **more) as answer:
        error: dict[str, Any] = (await answer.json())["error"]
        assert error["code"] == code, error
        assert 400 <= answer.status < 500
        return error


async def names(agent: Agent, **params: str) -> list[str]:
    body = await agent.call("GET", "/files", 200, params={"list": "1", **params})
    return [str(Path(entry["path"]).relative_to(agent.workspace)) for entry in body["entries"]]


async def test_what_is_written_is_read_again(agent: Agent) -> None:
    data = os.urandom(5 * 2**20 + 7)
    await agent.call("PUT", "/files", 204, params={"path": "deep/er/a b%ä.bin"}, data=data)
    async with agent.session.get("http://agent/files", params={"path": "deep/er/a b%ä.bin"}) as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Length"] == str(len(data))
        assert await answer.read() == data
    assert (agent.workspace / "deep/er/a b%ä.bin").read_bytes() == data


async def test_an_empty_file_and_a_file_of_proc_are_read(agent: Agent) -> None:
    (agent.workspace / "empty").touch()
    assert await agent.call("GET", "/files?path=empty", 200) == b""
    assert b"Name:" in await agent.call("GET", "/files?path=/proc/self/status", 200)


async def test_names_with_spaces_at_their_ends_and_control_characters_are_kept(agent: Agent) -> None:
    await agent.call("PUT", "/files", 204, params={"path": " a\x01b\n "}, data=b"x")
    assert names_in(agent.workspace) == [" a\x01b\n "]


async def test_a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(agent: Agent) -> None:
    target = agent.workspace / "f"
    await agent.call("PUT", "/files?path=f", 204, data=b"1")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    target.chmod(0o750)
    await agent.call("PUT", "/files?path=f", 204, data=b"2")
    assert stat.S_IMODE(target.stat().st_mode) == 0o750
    await agent.call("PUT", "/files?path=f&mode=600", 204, data=b"3")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    await fails(agent, "PUT", "/files?path=f&mode=9x", "INVALID_REQUEST", data=b"4")
    assert target.read_bytes() == b"3"


async def test_writing_to_a_link_writes_its_target(agent: Agent) -> None:
    (agent.workspace / "target").write_text("old")
    (agent.workspace / "link").symlink_to("target")
    await agent.call("PUT", "/files?path=link", 204, data=b"new")
    assert (agent.workspace / "link").is_symlink()
    assert (agent.workspace / "target").read_text() == "new"


async def test_an_upload_that_breaks_off_leaves_the_old_file_and_nothing_else(agent: Agent) -> None:
    (agent.workspace / "f").write_text("old")
    sent = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield b"x" * 2**20
        sent.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(agent.session.put("http://agent/files?path=f", data=half()).__aenter__())
    await sent.wait()
    while len(names_in(agent.workspace)) < 2:
        await asyncio.sleep(0.01)
    upload.cancel()
    while len(names_in(agent.workspace)) > 1:
        await asyncio.sleep(0.01)
    assert (agent.workspace / "f").read_text() == "old"


async def test_an_upload_is_not_held_in_memory(agent: Agent) -> None:
    async def zeros() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(2**20)

    await agent.call("PUT", "/files?path=big", 204, data=zeros())
    assert (agent.workspace / "big").stat().st_size == 200 * 2**20
    peak = Path(f"/proc/{agent.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
    assert int(peak) < 120_000
    async with agent.session.get("http://agent/files?path=big") as answer:
        total = 0
        async for piece in answer.content.iter_any():
            total += len(piece)
    assert total == 200 * 2**20
    peak = Path(f"/proc/{agent.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
    assert int(peak) < 120_000


async def test_a_listing_is_of_one_directory_or_all_below_without_what_is_hidden(agent: Agent) -> None:
    for name in ("b/c/d", "a", ".h/x", "b/.i"):
        path = agent.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert await names(agent, path=".") == ["a", "b"]
    assert await names(agent, path=".", recursive="1") == ["a", "b", "b/c", "b/c/d"]
    assert await names(agent, path=".", recursive="1", hidden="1") == [".h", ".h/x", "a", "b", "b/.i", "b/c", "b/c/d"]


async def test_information_about_a_file_is_what_the_client_reads(agent: Agent) -> None:
    (agent.workspace / "f").write_text("12345")
    (agent.workspace / "link").symlink_to("nowhere")
    (agent.workspace / "dir").mkdir()
    os.mkfifo(agent.workspace / "pipe")
    kinds = {}
    for name in ("f", "link", "dir", "pipe"):
        body = await agent.call("GET", f"/files?path={name}&stat=1", 200)
        info = models.from_json(models.FileInfo, body)
        assert (info.name, info.path) == (name, str(agent.workspace / name))
        kinds[name] = info.type
        if name == "f":
            assert (info.size, info.mode) == (5, 0o644)
            assert abs(datetime.now(UTC) - info.modified_at).days == 0
    assert kinds == {"f": "file", "link": "symlink", "dir": "directory", "pipe": "other"}


async def test_a_name_that_is_no_utf8_does_not_break_a_listing_and_can_be_read(agent: Agent) -> None:
    Path(os.fsdecode(os.fsencode(agent.workspace) + b"/\xff\xfe")).write_bytes(b"odd")
    assert await names(agent, path=".") == ["\ufffd\ufffd"]
    async with agent.session.get("http://agent/files?path=%FF%FE", allow_redirects=False) as answer:
        body = await answer.read()
    assert body == b"odd" or answer.status == 404  # aiohttp may re-encode the address


async def test_deleting(agent: Agent) -> None:
    (agent.workspace / "dir/sub").mkdir(parents=True)
    (agent.workspace / "dir/sub/f").touch()
    (agent.workspace / "link").symlink_to("dir")
    await agent.call("DELETE", "/files?path=link", 204)
    await agent.call("DELETE", "/files?path=dir/sub/f", 204)
    await fails(agent, "DELETE", "/files?path=dir", "IS_A_DIRECTORY")
    await agent.call("DELETE", "/files?path=dir&recursive=1", 204)
    assert names_in(agent.workspace) == []
    await fails(agent, "DELETE", "/files?path=dir", "FILE_NOT_FOUND")


async def test_moving(agent: Agent) -> None:
    (agent.workspace / "a").write_text("a")
    (agent.workspace / "b").write_text("b")
    (agent.workspace / "dir/full").mkdir(parents=True)
    (agent.workspace / "other").mkdir()

    async def move(source: Any, destination: Any, code: str | None = None) -> None:
        body = {"source": source, "destination": destination}
        if code is None:
            await agent.call("POST", "/files/move", 204, json=body)
        else:
            await fails(agent, "POST", "/files/move", code, json=body)

    await move("a", "b")
    assert (agent.workspace / "b").read_text() == "a"
    await move("a", "c", "FILE_NOT_FOUND")
    await move("b", "no/such", "FILE_NOT_FOUND")
    await move("b", "dir", "IS_A_DIRECTORY")
    await move("dir", "b", "NOT_A_DIRECTORY")
    await move("other", "dir", "DIRECTORY_NOT_EMPTY")
    await move("dir", "dir/full/x", "INVALID_PATH")
    await move(None, "b", "INVALID_PATH")
    await move("dir", "moved")
    assert (agent.workspace / "moved/full").is_dir()


async def test_moving_to_another_store_replaces_a_file(agent: Agent) -> None:
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == agent.workspace.stat().st_dev:
        pytest.skip("there is no second file system to move to")
    target = shm / f"jsbtest-{os.urandom(6).hex()}"
    try:
        target.write_text("old")
        (agent.workspace / "f").write_text("new")
        await agent.call("POST", "/files/move", 204, json={"source": "f", "destination": str(target)})
        assert target.read_text() == "new"
        assert names_in(agent.workspace) == []
    finally:
        target.unlink(missing_ok=True)


async def test_making_directories(agent: Agent) -> None:
    await agent.call("POST", "/files/mkdir", 204, json={"path": "a/b", "parents": True})
    await agent.call("POST", "/files/mkdir", 204, json={"path": "a/b"})
    await fails(agent, "POST", "/files/mkdir", "FILE_EXISTS", json={"path": "a", "parents": False})
    await fails(agent, "POST", "/files/mkdir", "FILE_NOT_FOUND", json={"path": "x/y", "parents": False})
    await agent.call("PUT", "/files?path=f", 204, data=b"")
    await fails(agent, "POST", "/files/mkdir", "FILE_EXISTS", json={"path": "f"})


IMPOSSIBLE = [
    ("GET", "/files", "INVALID_PATH"),
    ("GET", "/files?path=", "INVALID_PATH"),
    ("GET", "/files?path=a%00b", "INVALID_PATH"),
    ("GET", f"/files?path={'x' * 300}", "INVALID_PATH"),
    ("GET", "/files?path=none", "FILE_NOT_FOUND"),
    ("GET", "/files?path=none&stat=1", "FILE_NOT_FOUND"),
    ("GET", "/files?path=none&list=1", "FILE_NOT_FOUND"),
    ("GET", "/files?path=dir", "IS_A_DIRECTORY"),
    ("GET", "/files?path=file&list=1", "NOT_A_DIRECTORY"),
    ("GET", "/files?path=file/below", "NOT_A_DIRECTORY"),
    ("GET", "/files?path=pipe", "INVALID_PATH"),
    ("GET", "/files?path=/dev/zero", "INVALID_PATH"),
    ("GET", "/files?path=loop", "INVALID_PATH"),
    ("PUT", "/files?path=dir", "IS_A_DIRECTORY"),
    ("PUT", "/files?path=file/below", "NOT_A_DIRECTORY"),
    ("PUT", "/files?path=pipe", "INVALID_PATH"),
    ("PUT", "/files?path=/dev/null", "INVALID_PATH"),
    ("PUT", "/files?path=/proc/nothing", "FILE_NOT_FOUND"),
    ("PUT", "/files", "INVALID_PATH"),
    ("DELETE", "/files?path=a%00", "INVALID_PATH"),
    ("POST", "/files", "ROUTE_NOT_FOUND"),
    ("POST", "/files/copy", "ROUTE_NOT_FOUND"),
]


async def test_what_cannot_be_done_is_said_by_name(agent: Agent) -> None:
    (agent.workspace / "dir").mkdir()
    (agent.workspace / "file").touch()
    os.mkfifo(agent.workspace / "pipe")
    (agent.workspace / "loop").symlink_to("loop")
    for method, path, code in IMPOSSIBLE:
        problem = await fails(agent, method, path, code, data=b"x" * 100_000 if method == "PUT" else None)
        assert problem["message"]
    assert sorted(names_in(agent.workspace)) == ["dir", "file", "loop", "pipe"]


async def test_a_file_that_is_cut_short_while_it_is_read_is_not_taken_for_complete(agent: Agent) -> None:
    file = agent.workspace / "big"
    file.touch()
    os.truncate(file, 2**28)
    async with agent.session.get("http://agent/files?path=big") as answer:
        await answer.content.read(10)
        os.truncate(file, 100)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await agent.call("GET", "/files?path=big", 200)


async def test_a_download_that_nobody_reads_does_not_hold_up_others(agent: Agent) -> None:
    with (agent.workspace / "big").open("wb") as file:
        file.truncate(2**30)
    async with agent.session.get("http://agent/files?path=big", timeout=aiohttp.ClientTimeout(30)) as answer:
        await answer.content.read(10)
        assert (await agent.exec("echo here"))["stdout"] == "here\n"
