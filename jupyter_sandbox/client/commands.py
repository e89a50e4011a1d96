"""Runs one command in a sandbox and gathers what it writes (the agent's ``POST /exec``)."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from ..errors import SandboxError, error
from ..models import ExecResult, to_json
from . import arguments, ndjson
from .remote import Remote

MAX_OUTPUT = 256 * 1024**2
"""Characters of stdout and stderr together that are kept; a command that writes more is stopped."""


async def execute(
    remote: Remote,
    command: str,
    *,
    timeout: float | None,  # noqa: ASYNC109 - it is the agent's, sent along
    cwd: str | None,
    env: Mapping[str, str] | None,
    stdin: str | bytes | None,
    check: bool,
) -> ExecResult:
    """Run ``command`` with bash; see :meth:`AsyncSandbox.exec`."""
    given = arguments.stdin(stdin)
    body = {
        "command": arguments.text("command", command),
        "timeout": arguments.timeout(timeout),
        "cwd": arguments.optional_path(cwd, "cwd"),
        "env": arguments.environment(env),
        "stdin": None if given is None else base64.b64encode(given).decode("ascii"),
    }
    result = await _run(remote, body)
    if check:
        _raise_unless_success(result, timeout)
    return result


async def _run(remote: Remote, body: dict[str, Any]) -> ExecResult:
    written: dict[str, list[str]] = {"stdout": [], "stderr": []}
    kept = 0
    async with remote.agent("POST", "exec", json=body) as response:
        async for event in ndjson.objects(response.content):
            kind, data = event.get("event"), event.get("data")
            if kind == "result":
                return _result(event, body["command"], written)
            if kind not in written or not isinstance(data, str):
                raise error("OUTPUT_INVALID", "The sandbox sent an event that is none of a command's.")
            written[kind].append(data)
            if (kept := kept + len(data)) > MAX_OUTPUT:
                raise _too_much()
    raise error("OUTPUT_INVALID", "The command ended without a result; whether it succeeded is not known.")


def _result(event: dict[str, Any], command: str, written: dict[str, list[str]]) -> ExecResult:
    exit_code, timed_out, duration = event.get("exit_code"), event.get("timed_out"), _seconds(event.get("duration"))
    if type(exit_code) is not int or not isinstance(timed_out, bool) or duration is None:
        raise error("OUTPUT_INVALID", "The sandbox sent a result that cannot be read.")
    return ExecResult(
        stdout="".join(written["stdout"]),
        stderr="".join(written["stderr"]),
        exit_code=124 if timed_out else exit_code,
        timed_out=timed_out,
        duration=duration,
        command=command,
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _raise_unless_success(result: ExecResult, timeout: float | None) -> None:
    if result.success:
        return
    shown = result.command if len(result.command) <= 80 else result.command[:77] + "..."
    if result.timed_out:
        raise error(
            "EXECUTION_TIMEOUT",
            f"The command {shown!r} ran longer than {timeout:g} seconds, and was killed with all that it started.",
            result=to_json(result),
        )
    last = result.stderr.strip().rpartition("\n")[2][:300]
    said = f": {last}" if last else "."
    raise error(
        "COMMAND_FAILED", f"The command {shown!r} ended with exit code {result.exit_code}{said}", result=to_json(result)
    )


def _too_much() -> SandboxError:
    return error(
        "TOO_LARGE",
        f"The command wrote more than {MAX_OUTPUT // 1024**2} MiB, and was stopped.",
        remedy="Let it write to a file in the sandbox.",
    )
