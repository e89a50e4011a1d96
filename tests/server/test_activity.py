"""What keeps a Jupyter server from being shut down for idleness, what does not, and what it tells of changes."""

import asyncio
import json
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from jupyter_sandbox import get_async_sandbox, list_sandboxes
from jupyter_sandbox.models import SandboxSummary
from jupyter_sandbox.server import events, watcher
from jupyter_sandbox.server.activity import SOURCE, Activity
from jupyter_sandbox.server.channel import ChannelHandler

from .servers import TOKEN
from .test_access import NamesPeople

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def looks_often(monkeypatch):
    """The server finds a manager soon after it has started."""
    monkeypatch.setattr(watcher, "LOOK_AGAIN", 0.1)


async def until(true):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.05)


def forget(server):
    """As if the server had been idle for years."""
    settings = server.app.web_app.settings
    settings["started"] = server.app.kernel_manager.last_kernel_activity = LONG_AGO
    for name in [name for name in settings if name.endswith("_last_activity")]:
        settings[name] = LONG_AGO
    settings["last_activity_times"].clear()


async def test_looking_does_not_keep_the_server_from_idling(server):
    forget(server)
    paths = ["/version", "/sandboxes", "/sandboxes/-/one", "/sandboxes/-/one/agent/status", "/nothing"]
    async with server.client() as client:
        for path in paths:
            async with client.get(server.at(path)) as answer:
                assert answer.status in (200, 404)
        async with client.get(server.at("/events")) as stream:
            assert stream.status == 200
    assert server.app.web_app.last_activity() == LONG_AGO
    assert not server.app.extension_manager.any_activity()


@pytest.mark.bubblewrap
async def test_work_keeps_the_server_until_the_sandbox_sleeps_whoever_does_it(server, looks_often):
    forget(server)
    any_activity = server.app.extension_manager.any_activity
    async with get_async_sandbox("elsewhere") as sandbox:  # On the manager's own socket, as a notebook does.
        await sandbox.exec("true")
        await until(any_activity)
        assert server.app.web_app.last_activity() > datetime.now(UTC) - timedelta(minutes=5)
        await sandbox.sleep()
        await until(lambda: not any_activity())
        await sandbox.wake()
        await until(any_activity)
        await sandbox.destroy()
        await until(lambda: not any_activity())


@pytest.mark.bubblewrap
async def test_a_command_in_flight_is_activity(server):
    extension = server.app.extension_manager.extension_points["jupyter_sandbox"].app
    command = {"command": "echo started; sleep 1000"}
    async with server.client() as client:
        async with client.put(server.at("/sandboxes/-/one"), json={}) as answer:
            assert answer.status == 200
        async with client.post(server.at("/sandboxes/-/one/agent/exec"), json=command) as answer:
            await answer.content.readline()
            assert "requests" in extension.current_activity()


def test_a_sandbox_that_is_kept_alive_does_not_keep_the_server(environment):
    times = {}
    activity = Activity(times)
    activity.listed([SandboxSummary("one", "running", last_active_at=LONG_AGO, keep_alive=True)])
    assert (activity.current(), times) == (None, {SOURCE: LONG_AGO})
    activity.listed([SandboxSummary("one", "running"), SandboxSummary("two", "sleeping")])
    assert activity.current() == {"one": "running"}
    assert times == {SOURCE: LONG_AGO}


@pytest.mark.bubblewrap
async def test_changes_become_events_of_the_server_without_anything_secret(server, looks_often):
    heard = await changes_heard(server)
    assert {"running", "sleeping", "absent"} & {data["state"] for data in heard} >= {"running", "sleeping"}
    assert {data["id"] for data in heard} == {"one"}
    for data in heard:
        assert {name for name in data if not name.startswith("__")} == {"id", "state", "generation"}
    assert TOKEN not in json.dumps(heard)


@pytest.mark.bubblewrap
async def test_where_people_are_told_apart_an_event_names_no_sandbox(start_server, looks_often):
    heard = await changes_heard(start_server(identity_provider_class=NamesPeople))
    assert heard
    assert not [data for data in heard if "id" in data]


async def changes_heard(server):
    heard = []

    async def listen(logger, schema_id, data):
        heard.append(data)

    await asyncio.to_thread(list_sandboxes)  # A manager runs.
    services = server.app.web_app.settings["jupyter_sandbox_services"]
    server.here(lambda: server.app.event_logger.add_listener(schema_id=events.SCHEMA_ID, listener=listen))
    async with get_async_sandbox("one") as sandbox:
        await sandbox.exec("true")
        await until(lambda: services.activity.runs)
        await sandbox.sleep()
        await until(lambda: "sleeping" in [data["state"] for data in heard])
        await sandbox.wake()
        await until(lambda: heard[-1]["state"] == "running")
        await sandbox.destroy()
    return heard


async def test_the_server_starts_no_manager_by_itself(server, environment, looks_often):
    async with server.client() as client, client.get(server.at("/nothing")) as answer:
        assert answer.status == 404
    assert environment.manager_pid is None


@pytest.mark.bubblewrap
async def test_small_frames_are_sent_at_once(server, monkeypatch):
    seen = []
    opened = ChannelHandler.open

    def watched(handler, *args):
        opened(handler, *args)
        seen.append(handler.ws_connection.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(ChannelHandler, "open", watched)
    monkeypatch.setenv("JUPYTER_SANDBOX_URL", server.api)
    monkeypatch.setenv("JUPYTER_SANDBOX_TOKEN", TOKEN)
    async with get_async_sandbox("one") as sandbox:
        await sandbox.run_code("1")
    monkeypatch.delenv("JUPYTER_SANDBOX_URL")
    assert len(seen) == 1
    assert seen[0] != 0


def test_installing_the_package_enables_the_extension(environment):
    command = [sys.executable, "-m", "jupyter_server.extension.serverextension", "list"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/")
    lines = [line.strip() for line in (found.stdout + found.stderr).splitlines() if "jupyter_sandbox" in line]
    assert any("enabled" in line for line in lines), lines
    assert any("OK" in line for line in lines), lines
