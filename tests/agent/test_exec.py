"""Commands: what they print, how they end, and that nothing of them is left when they must be gone."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

from .conftest import Agent, alive, names_in, pids_with, running_agent


def marker() -> str:
    """A number of seconds that no other process sleeps."""
    return f"9{int.from_bytes(os.urandom(4), 'big'):010d}"


async def gone(mark: str) -> bool:
    """Whether every process with the mark ends (bounded: it is about to, or it never does)."""
    for _ in range(200):
        if not list(pids_with(mark)):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_a_command_gives_its_output_and_exit_code(agent: Agent) -> None:
    result = await agent.exec("echo out; echo err >&2; exit 3")
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out\n", "err\n", 3)
    assert not result["timed_out"]
    assert result["duration"] > 0


async def test_exit_codes_are_those_of_a_shell(agent: Agent) -> None:
    for command, code in [
        ("no-such-command-here", 127),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
        ("exit 255", 255),
    ]:
        assert (await agent.exec(command))["exit_code"] == code


async def test_without_bash_the_command_runs_in_sh(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    assert (await agent.exec("echo $0", env={"PATH": str(tmp_path)}))["stdout"] == "sh\n"


async def test_it_starts_in_the_workspace_with_the_sandboxs_environment(agent: Agent) -> None:
    names = ["PWD", "HOME", "USER", "LANG", "TZ", "OWN"]
    result = await agent.exec(" ".join(f'echo "${name}";' for name in names), env={"OWN": "a b\nc"})
    expected = [str(agent.workspace), str(agent.home), "sandbox", "C.UTF-8", "UTC", "a b\nc"]
    assert result["stdout"] == "\n".join(expected) + "\n"


async def test_it_starts_in_the_directory_that_is_asked_for(agent: Agent) -> None:
    (agent.workspace / "sub").mkdir()
    assert (await agent.exec("pwd", cwd="sub"))["stdout"] == f"{agent.workspace}/sub\n"
    assert (await agent.exec("pwd", cwd="/"))["stdout"] == "/\n"


async def test_the_environment_can_be_replaced_for_later_processes() -> None:
    async with running_agent({"env": {"A": "1"}}) as agent:
        assert (await agent.exec("echo $A$B"))["stdout"] == "1\n"
        await agent.call("PUT", "/env", 204, json={"env": {"B": "2"}})
        assert (await agent.exec("echo $A$B"))["stdout"] == "2\n"


WRONG_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({}, "INVALID_REQUEST"),
    ({"command": ""}, "INVALID_REQUEST"),
    ({"command": ["ls"]}, "INVALID_REQUEST"),
    ({"command": "a\0b"}, "INVALID_REQUEST"),
    ({"command": "ls", "timeout": 0}, "INVALID_TIMEOUT"),
    ({"command": "ls", "timeout": "5"}, "INVALID_TIMEOUT"),
    ({"command": "ls", "timeout": True}, "INVALID_TIMEOUT"),
    ({"command": "ls", "cwd": "/no/such/place"}, "FILE_NOT_FOUND"),
    ({"command": "ls", "cwd": "/etc/passwd"}, "NOT_A_DIRECTORY"),
    ({"command": "ls", "cwd": "a\0"}, "INVALID_PATH"),
    ({"command": "ls", "cwd": 5}, "INVALID_PATH"),
    ({"command": "ls", "env": {"A=B": "c"}}, "INVALID_REQUEST"),
    ({"command": "ls", "env": {"A": 5}}, "INVALID_REQUEST"),
    ({"command": "ls", "env": ["A"]}, "INVALID_REQUEST"),
    ({"command": "ls", "stdin": "%%%"}, "INVALID_REQUEST"),
    ({"command": "ls", "stdin": 5}, "INVALID_REQUEST"),
]


async def test_a_wrong_request_is_refused_by_name_before_anything_starts(agent: Agent) -> None:
    for body, code in WRONG_REQUESTS:
        async with agent.session.post("http://agent/exec", json=body) as answer:
            assert (await answer.json())["error"]["code"] == code, body
            assert 400 <= answer.status < 500


async def test_standard_input_is_passed_whole_and_is_empty_otherwise(agent: Agent) -> None:
    data = os.urandom(3 * 2**20)
    encoded = base64.b64encode(data).decode()
    assert (await agent.exec("wc -c", stdin=encoded))["stdout"].strip() == str(len(data))
    assert (await agent.exec("wc -c"))["stdout"].strip() == "0"


async def test_a_command_line_of_100_kb_and_an_environment_of_1_mb_arrive(agent: Agent) -> None:
    env = {f"V{n}": "x" * 100_000 for n in range(10)}
    result = await agent.exec(f"# {'y' * 100_000}\necho ${{#V9}}", env=env)
    assert result["stdout"] == "100000\n"


async def test_output_arrives_while_the_command_runs(agent: Agent) -> None:
    command = f"echo first; while [ ! -e {agent.workspace}/go ]; do sleep 0.01; done; echo second"
    async with agent.session.post("http://agent/exec", json={"command": command}) as answer:
        assert json.loads(await answer.content.readline()) == {"event": "stdout", "data": "first\n"}
        (agent.workspace / "go").touch()
        assert json.loads(await answer.content.readline()) == {"event": "stdout", "data": "second\n"}
        assert json.loads(await answer.content.readline())["exit_code"] == 0


async def test_large_output_is_complete_and_comes_in_small_events(agent: Agent) -> None:
    total = 0
    command = {"command": "yes 'äöü€😀' | head -c 8000000"}
    async with agent.session.post("http://agent/exec", json=command, read_bufsize=2**22) as answer:
        async for line in answer.content:
            event = json.loads(line)
            data = event.get("data", "").encode()
            assert len(data) <= 64 * 1024
            assert "\ufffd" not in event.get("data", "")[:-1]
            total += len(data)
    assert event["exit_code"] == 0
    assert abs(total - 8_000_000) <= 8  # the last character may be cut by head, and is then replaced


async def test_bytes_that_are_no_utf8_are_replaced(agent: Agent) -> None:
    result = await agent.exec(r"printf 'a\xff\xfeb\xe2\x82'; printf '\xc3' >&2; sleep 0.05; printf '\xa9' >&2")
    assert result["stdout"] == "a\ufffd\ufffdb\ufffd"
    assert result["stderr"] == "é"


async def test_a_reader_that_does_not_read_stops_the_command_and_not_the_agent(agent: Agent) -> None:
    mark = marker()
    command = {"command": f"yes {mark}"}
    async with agent.session.post("http://agent/exec", json=command) as answer:
        await answer.content.readline()
        for _ in range(50):
            status = await agent.call("GET", "/status", 200)
        assert [busy["kind"] for busy in status["busy"]] == ["exec"]
        memory = Path(f"/proc/{agent.process.pid}/status").read_text()
        kib = next(int(line.split()[1]) for line in memory.splitlines() if line.startswith("VmRSS"))
        assert kib < 100_000
    assert await gone(mark)
    assert (await agent.call("GET", "/status", 200))["busy"] == []


ESCAPES = """
import os, sys
mark = sys.argv[1]
os.fork() and os._exit(0)          # the shell's child is gone
os.setsid()                        # another session
os.fork() and os._exit(0)          # and a double fork
os.execve("/bin/sleep", ["sleep", mark], {})   # with a clean environment
"""


async def test_a_command_that_times_out_is_dead_with_all_its_children(agent: Agent) -> None:
    mark = marker()
    (agent.workspace / "escape.py").write_text(ESCAPES)
    escapes = f"python escape.py {mark}; python escape.py {mark}; setsid -f sleep {mark}; (sleep {mark} &); echo up;"
    result = await agent.exec(f"trap '' TERM INT HUP; {escapes} sleep {mark}", timeout=1.5)
    assert list(pids_with(mark)) == []
    assert (result["exit_code"], result["timed_out"], result["stdout"]) == (124, True, "up\n")


async def test_a_hundred_children_that_breed_are_dead_after_the_timeout(agent: Agent) -> None:
    mark = marker()
    breed = (
        f"for i in $(seq 50); do setsid sh -c 'while :; do sleep 0.01; setsid sleep {mark} & wait; done' & done; wait"
    )
    assert (await agent.exec(breed, timeout=1))["exit_code"] == 124
    assert list(pids_with(mark)) == []


async def test_a_background_child_survives_and_does_not_hold_up_the_result(agent: Agent) -> None:
    mark = marker()
    result = await agent.exec(f"echo started; sleep {mark} & ")
    assert result["stdout"] == "started\n"
    (pid,) = pids_with(mark)
    os.kill(pid, 9)


async def test_a_background_child_can_go_on_writing_after_the_result(agent: Agent) -> None:
    script = "(for i in $(seq 3000); do echo a line of some length, to fill the pipe; done; touch done) &"
    await agent.exec(script)
    for _ in range(500):
        if (agent.workspace / "done").exists():
            break
        await asyncio.sleep(0.02)
    assert (agent.workspace / "done").exists()


async def test_a_background_child_that_never_stops_writing_does_not_hold_up_the_result(agent: Agent) -> None:
    mark = marker()
    result = await agent.exec(f"yes {mark} & echo started")
    assert "started\n" in result["stdout"]
    (pid,) = pids_with(mark)
    os.kill(pid, 9)


async def test_output_of_a_child_that_ends_just_after_the_command_is_not_lost(agent: Agent) -> None:
    assert (await agent.exec("echo text > >(sleep 0.02; cat)"))["stdout"] == "text\n"


async def test_a_caller_that_goes_away_ends_the_whole_tree(agent: Agent) -> None:
    mark = marker()
    command = {"command": f"setsid -f sleep {mark}; echo up; sleep {mark}"}
    async with agent.session.post("http://agent/exec", json=command) as answer:
        await answer.content.readline()
        assert len(list(pids_with(mark))) >= 2
    assert await gone(mark)


async def test_commands_yield_cpu_and_memory_to_the_agent(agent: Agent) -> None:
    result = await agent.exec("cat /proc/self/oom_score_adj; nice")
    own = int(Path(f"/proc/{agent.process.pid}/oom_score_adj").read_text())
    niceness = os.getpriority(os.PRIO_PROCESS, agent.process.pid)
    assert result["stdout"].split() == [str(min(1000, own + 500)), str(niceness + 5)]


async def test_limits_of_the_hand_off_bind_what_is_started() -> None:
    async with running_agent({"memory": 2**29, "pids": 4000}) as agent:
        assert (await agent.exec("ulimit -d; ulimit -u"))["stdout"].split() == [str(2**29 // 1024), "4000"]
        result = await agent.exec("python -c 'bytearray(2**30)'")
        assert "MemoryError" in result["stderr"]
        assert (await agent.call("GET", "/status", 200))["busy"] == []


async def test_a_command_leaves_nothing_open_in_the_agent(agent: Agent) -> None:
    await agent.exec("true")
    before = await settled_descriptors(agent)
    for _ in range(20):
        await agent.exec("echo x; cat", stdin="eA==")
    assert await settled_descriptors(agent) <= before
    assert (await agent.call("GET", "/status", 200))["busy"] == []


async def settled_descriptors(agent: Agent) -> int:
    """How many descriptors the agent has once supervisors have ended and the next one is forked: no change for 1 s."""
    last, unchanged = -1, 0
    while unchanged < 50:
        await asyncio.sleep(0.02)
        now = len(names_in(f"/proc/{agent.process.pid}/fd"))
        last, unchanged = now, (unchanged + 1 if now == last else 0)
    return last


async def test_many_commands_run_at_once(agent: Agent) -> None:
    results = await asyncio.gather(*(agent.exec(f"sleep 0.1; echo {n}") for n in range(30)))
    assert [result["stdout"] for result in results] == [f"{n}\n" for n in range(30)]


async def test_user_code_that_kills_the_spawner_does_not_stop_the_sandbox(agent: Agent) -> None:
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split()
    await agent.exec(f"kill -9 {' '.join(children)}")
    for pid in children:
        while alive(int(pid)):
            await asyncio.sleep(0.01)
    assert (await agent.exec("echo again"))["stdout"] == "again\n"


async def test_user_code_that_kills_its_supervisor_gets_a_result(agent: Agent) -> None:
    assert (await agent.exec("kill -9 $PPID; sleep 0.2"))["exit_code"] == 137


async def test_what_was_forked_in_advance_and_then_killed_is_replaced(agent: Agent) -> None:
    for whom in ("supervisors", "recruits"):
        await agent.exec("true")
        while not (found := waiting(agent)[whom]):
            await asyncio.sleep(0.01)
        for pid in found:
            os.kill(pid, 9)
        while any(map(alive, found)):
            await asyncio.sleep(0.01)
        result = await agent.exec(f"echo {whom}")
        assert (result["exit_code"], result["stdout"]) == (0, f"{whom}\n")


async def test_a_command_whose_supervisor_is_killed_ends_with_it(agent: Agent) -> None:
    mark = marker()
    assert (await agent.exec(f"kill -9 $PPID; exec sleep {mark}"))["exit_code"] == 137
    assert await gone(mark)


async def test_what_was_forked_in_advance_ends_with_the_agent() -> None:
    async with running_agent() as agent:
        await agent.exec("true")
        while not (found := waiting(agent)["recruits"]):
            await asyncio.sleep(0.01)
    while any(map(alive, found)):
        await asyncio.sleep(0.01)


def waiting(agent: Agent) -> dict[str, list[int]]:
    """The processes that wait below the agent's spawner while no command runs."""
    supervisors = [pid for spawner in children(agent.process.pid) for pid in children(spawner)]
    return {"supervisors": supervisors, "recruits": [pid for above in supervisors for pid in children(above)]}


def children(pid: int) -> list[int]:
    """The children of a process; none if it has ended."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
