"""Contexts: one kernel each, that keeps its state, can be interrupted and restarted, and dies with a reason."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from itertools import groupby
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .conftest import PROTOCOL, Agent, alive, pids_with, running_agent, text, value


async def test_a_context_is_one_kernel_that_keeps_its_state_without_channels(agent: Agent) -> None:
    first = await agent.kernel(context="mine")
    assert (first["status"], first["created"], first["context"], first["language"]) == (201, True, "mine", "python")
    async with agent.channel(first["id"]) as channel:
        await channel.run("x = 41")
    again = await agent.kernel(context="mine", language="python")
    assert (again["status"], again["created"], again["id"]) == (200, False, first["id"])
    async with agent.channel(first["id"]) as channel:
        assert value(await channel.run("x + 1")) == "42"
    other = await agent.kernel()
    assert other["context"] == "default"
    assert {k["id"] for k in await agent.call("GET", "/api/kernels", 200)} == {first["id"], other["id"]}
    model = await agent.call("GET", f"/api/kernels/{first['id']}", 200)
    assert (model["name"], model["connections"], model["execution_state"]) == ("python3", 0, "idle")


async def test_concurrent_first_calls_share_one_kernel(agent: Agent) -> None:
    kernels = await asyncio.gather(*(agent.kernel() for _ in range(5)))
    assert len({kernel["id"] for kernel in kernels}) == 1
    assert sum(kernel["created"] for kernel in kernels) == 1


async def test_code_runs_in_the_sandboxs_surroundings(agent: Agent) -> None:
    (agent.workspace / "sub").mkdir()
    kernel = await agent.kernel(cwd="sub", env={"OWN": "1"})
    async with agent.channel(kernel["id"]) as channel:
        code = "import os; [os.getcwd(), os.environ['HOME'], os.environ['OWN'], os.environ['LANG']]"
        assert value(await channel.run(code)) == str([str(agent.workspace / "sub"), str(agent.home), "1", "C.UTF-8"])
        own = int(Path(f"/proc/{agent.process.pid}/oom_score_adj").read_text())
        messages = await channel.run("print(open('/proc/self/oom_score_adj').read(), os.nice(0))")
        niceness = os.getpriority(os.PRIO_PROCESS, agent.process.pid)
        assert text(messages).split() == [str(min(1000, own + 500)), str(niceness + 5)]


async def test_a_new_kernel_says_nothing_by_itself(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        messages = await channel.run("1")
        assert [m for m in messages if m["type"] == "stream"] == []


async def test_the_first_output_of_a_new_kernel_is_not_lost(agent: Agent) -> None:
    for context in "abc":
        kernel = await agent.kernel(context=context)
        async with agent.channel(kernel["id"]) as channel:
            messages = await channel.run("print('early')")
            assert text(messages) == "early\n"
            # On a busy machine the kernel sends a line in two pieces.
            kinds = [kind for kind, _ in groupby(m["type"] for m in messages if m["channel"] == "iopub")]
            assert kinds == ["status", "execute_input", "stream", "status"]


async def test_every_channel_hears_all_output_and_only_its_own_replies(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as one, agent.channel(kernel["id"]) as two:
        await one.run("print('hello', end='')")
        assert (await two.until("stream"))["content"]["text"] == "hello"
        run = await two.start("2")
        heard = [await two.receive()]
        while heard[-1]["type"] != "execute_reply":
            heard.append(await two.receive())
        assert heard[-1]["parent"] == run


async def test_input_is_asked_of_the_channel_that_runs_the_code(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as asked, agent.channel(kernel["id"]):
        run = await asked.start("name = input('who? '); print('hi', name)", allow_stdin=True)
        request = await asked.until("input_request")
        assert (request["channel"], request["content"]["prompt"]) == ("stdin", "who? ")
        await asked.send("input_reply", {"value": "Ada"}, "stdin", request["header"])
        assert text(await asked.finish(run)) == "hi Ada\n"


async def test_buffers_pass_both_ways(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        run = await channel.start("from comm import create_comm; c = create_comm('t', buffers=[b'\\x00\\xff', b''])")
        opened = await channel.until("comm_open")
        assert opened["buffers"] == [b"\x00\xff", b""]
        await channel.finish(run)


async def test_a_context_that_starts_is_busy_because_somebody_waits_for_it(agent: Agent) -> None:
    kernel = await agent.kernel()
    assert [one["name"] for one in (await agent.call("GET", "/status", 200))["busy"]] == ["default"]
    async with agent.channel(kernel["id"]) as channel:
        await channel.run("1")
    async with asyncio.timeout(20):  # its sign of life may come behind the first result
        while (await agent.call("GET", "/status", 200))["busy"]:
            await asyncio.sleep(0.02)


async def test_who_has_seen_the_idle_never_finds_the_kernel_busy(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel, agent.channel(kernel["id"]) as other:
        await channel.run("1")
        for _ in range(20):
            await channel.run("1")
            assert (await agent.call("GET", "/status", 200))["busy"] == []
        await other.run("1")


async def test_a_busy_context_is_seen_in_the_status_until_it_is_idle(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        run = await channel.start("import time\nprint('up', flush=True)\nwhile True: time.sleep(0.01)")
        await channel.until("stream")
        await channel.send("kernel_info_request", {}, "control")
        await channel.until("kernel_info_reply")
        status = await agent.call("GET", "/status", 200)
        (busy,) = status["busy"]
        assert (busy["kind"], busy["name"]) == ("context", "default")
        assert "T" in busy["since"]
        assert [c["state"] for c in status["contexts"]] == ["busy"]
        await agent.call("POST", f"/api/kernels/{kernel['id']}/interrupt", 204)
        messages = await channel.finish(run)
        assert [m["content"]["ename"] for m in messages if m["type"] == "error"] == ["KeyboardInterrupt"]
        await channel.run("1")
    assert (await agent.call("GET", "/status", 200))["busy"] == []


async def test_an_interrupt_reaches_the_kernel_alone_and_by_force_also_what_it_waits_for(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        code = """
import signal, subprocess, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
p = subprocess.Popen(["sleep", "1000"])
print("up", end="", flush=True)
while p.poll() is None:
    if seen:
        print("caught", end="", flush=True)
        seen.clear()
    time.sleep(0.01)
print("ended", p.returncode)
"""
        run = await channel.start(code)
        await channel.until("stream")
        await agent.call("POST", f"/api/kernels/{kernel['id']}/interrupt", 204)
        assert (await channel.until("stream"))["content"]["text"] == "caught"
        await agent.call("POST", f"/api/kernels/{kernel['id']}/interrupt", 204, json={"force": True})
        assert "ended -2" in text(await channel.finish(run))


async def test_an_interrupt_of_a_kernel_that_starts_does_not_kill_it(agent: Agent) -> None:
    kernel = await agent.kernel()
    for _ in range(20):
        await agent.call("POST", f"/api/kernels/{kernel['id']}/interrupt", 204)
        await asyncio.sleep(0.01)
    async with agent.channel(kernel["id"]) as channel:
        assert value(await channel.run("1+1")) == "2"


async def test_a_restart_keeps_id_and_channels_and_loses_variables_and_children(agent: Agent) -> None:
    kernel = await agent.kernel()
    mark = f"9{os.getpid()}77"
    async with agent.channel(kernel["id"]) as one, agent.channel(kernel["id"]) as two:
        await one.run(f"x = 1; import subprocess; subprocess.Popen(['setsid', 'sleep', '{mark}'])")
        assert list(pids_with(mark))
        model = await agent.call("POST", f"/api/kernels/{kernel['id']}/restart", 200)
        assert model["id"] == kernel["id"]
        assert list(pids_with(mark)) == []
        await one.until("status", execution_state="restarting")
        messages = await one.run("print('after'); 'x' in globals()")
        assert (text(messages), value(messages)) == ("after\n", "False")
        assert value(await two.run("2")) == "2"


async def test_a_busy_kernel_can_be_restarted(agent: Agent) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        await channel.start("import time\nprint('up', flush=True)\nwhile True:\n try: time.sleep(9)\n except: pass")
        await channel.until("stream")
        await agent.call("POST", f"/api/kernels/{kernel['id']}/restart", 200)
        assert value(await channel.run("3")) == "3"


@pytest.mark.parametrize(
    ("code", "exit_code", "signal", "reason"),
    [
        ("os._exit(3)", 3, None, "exit code 3"),
        ("os.kill(os.getpid(), 9)", None, 9, "SIGKILL"),
    ],
)
async def test_every_channel_hears_at_once_why_a_kernel_died_and_so_does_the_next(
    agent: Agent, code: str, exit_code: int | None, signal: int | None, reason: str
) -> None:
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as one, agent.channel(kernel["id"]) as two:
        await one.start(f"import os, time; print('last words', flush=True); time.sleep(0.1); {code}")
        for channel in (one, two):
            seen = []
            while not (seen and seen[-1]["content"].get("execution_state") == "dead"):
                seen.append(await channel.receive())
            assert text(seen) == "last words\n"
            dead = seen[-1]["content"]
            assert (dead["exit_code"], dead["signal"]) == (exit_code, signal)
            assert reason in dead["reason"]
    assert await agent.call("GET", "/api/kernels", 200) == []
    new = await agent.kernel()
    assert new["created"]
    assert new["id"] != kernel["id"]
    assert reason in new["notice"]
    assert (await agent.kernel())["notice"] is None
    async with agent.session.get(f"http://agent/api/kernels/{kernel['id']}") as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "CONTEXT_NOT_FOUND")


async def test_deleting_a_context_ends_all_that_it_started_and_needs_no_notice(agent: Agent) -> None:
    kernel = await agent.kernel()
    mark = f"9{os.getpid()}78"
    async with agent.channel(kernel["id"]) as channel:
        await channel.run(f"import os; pid = os.getpid(); os.system('setsid -f sleep {mark}')")
        pid = int(value(await channel.run("pid")))
        await agent.call("DELETE", f"/api/kernels/{kernel['id']}", 204)
        dead = await channel.until("status", execution_state="dead")
        assert "on request" in dead["content"]["reason"]
        assert await channel.closed() == 1000
    assert not alive(pid)
    assert list(pids_with(mark)) == []
    assert (await agent.kernel())["notice"] is None


async def test_a_kernel_that_cannot_start_says_why(agent: Agent) -> None:
    write_spec(agent, "broken", {"argv": ["python", "-c", "raise SystemExit('no such thing')"], "language": "broken"})
    kernel = await agent.kernel(language="broken")
    url = f"http://agent/api/kernels/{kernel['id']}/channels"
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await agent.session.ws_connect(url, protocols=[PROTOCOL])
    assert caught.value.status in (404, 500)
    assert "no such thing" in (await agent.kernel(language="broken"))["notice"]


def write_spec(agent: Agent, name: str, spec: dict[str, Any]) -> None:
    directory = agent.home / ".local/share/jupyter/kernels" / name
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text(json.dumps({"display_name": name, **spec}))


async def test_kernels_of_other_languages_are_found_and_interrupted_in_their_way(agent: Agent) -> None:
    argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "language": "Snake", "interrupt_mode": "message", "env": {"SNAKE": "{resource_dir}"}}
    write_spec(agent, "snake", spec)
    specs = await agent.call("GET", "/api/kernelspecs", 200)
    assert specs["default"] == "python3"
    assert specs["kernelspecs"]["snake"]["spec"]["language"] == "Snake"
    assert (await agent.call("GET", "/api/kernelspecs/snake", 200))["name"] == "snake"
    kernel = await agent.kernel(language="snake", context="s")
    assert (kernel["name"], kernel["language"]) == ("snake", "Snake")
    async with agent.channel(kernel["id"]) as channel:
        run = await channel.start("import time\nprint('up', flush=True)\ntime.sleep(1000)")
        await channel.until("stream")
        assert [b["name"] for b in (await agent.call("GET", "/status", 200))["busy"]] == ["s"]
        await agent.call("POST", f"/api/kernels/{kernel['id']}/interrupt", 204)
        assert any(m["type"] == "error" for m in await channel.finish(run))


WRONG_WISHES: list[tuple[dict[str, Any], int, str]] = [
    ({"language": "cobol"}, 404, "LANGUAGE_NOT_FOUND"),
    ({"name": "nope"}, 404, "LANGUAGE_NOT_FOUND"),
    ({"cwd": "/none"}, 404, "FILE_NOT_FOUND"),
    ({"env": {"A": 1}}, 400, "INVALID_REQUEST"),
    ({"context": 5}, 400, "INVALID_REQUEST"),
]


async def test_a_wrong_wish_is_refused_by_name(agent: Agent) -> None:
    for body, status, code in WRONG_WISHES:
        answer = await agent.call("POST", "/api/kernels", status, json=body)
        assert answer["error"]["code"] == code
        if code == "LANGUAGE_NOT_FOUND":
            assert "python" in answer["error"]["message"]


async def test_a_context_keeps_its_language(agent: Agent) -> None:
    await agent.kernel(context="c")
    answer = await agent.call("POST", "/api/kernels", 409, json={"context": "c", "language": "r"})
    assert answer["error"]["code"] == "OPTION_CONFLICT"


async def test_the_preloaded_kernel_is_the_default_context_and_new_to_who_asks_first() -> None:
    async with running_agent({"preload": True, "env": {"FROM": "owner"}}) as agent:
        (seen,) = await agent.call("GET", "/api/kernels", 200)
        kernel = await agent.kernel(language="python")
        assert (kernel["id"], kernel["created"], kernel["status"]) == (seen["id"], True, 201)
        assert not (await agent.kernel())["created"]
        async with agent.channel(kernel["id"]) as channel:
            assert value(await channel.run("import os; os.environ['FROM']")) == "'owner'"


async def test_a_preloaded_kernel_that_does_not_fit_the_first_wish_is_replaced() -> None:
    async with running_agent({"preload": True}) as agent:
        await agent.kernel(context="other")
        kernel = await agent.kernel(env={"A": "b"})
        assert kernel["created"]
        assert kernel["notice"] is None
        async with agent.channel(kernel["id"]) as channel:
            assert value(await channel.run("import os; os.environ['A']")) == "'b'"


async def test_pip_installs_into_the_writable_layer_over_the_read_only_packages(agent: Agent) -> None:
    wheel = agent.workspace / "jsbtest_pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = "jsbtest_pkg-1.0.dist-info"
        archive.writestr("jsbtest_pkg.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: jsbtest_pkg\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    result = await agent.exec(f"pip install --no-index {wheel.name} && which python")
    assert result["exit_code"] == 0, result["stderr"]
    assert result["stdout"].endswith(f"{agent.home}/.venv/bin/python\n")
    kernel = await agent.kernel()
    async with agent.channel(kernel["id"]) as channel:
        messages = await channel.run("import jsbtest_pkg, tornado; jsbtest_pkg.__file__")
        assert value(messages).startswith(f"'{agent.home}/.venv/")
