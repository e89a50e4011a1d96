"""One start of a bubblewrap sandbox, step by step; every step knows how to be undone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

from ...errors import SandboxError, error
from ...options import ResolvedLimits
from .. import cgroups, handoff
from ..base import Progress, StartSpec
from ..processes import ProcessId
from . import arguments, cpus, files, found
from .handle import Handle
from .launch import Launched, Plan, launch

COMMAND = ("-I", arguments.AGENT, "--handoff-fd", "{handoff}")

_REMEDY = (
    "bubblewrap needs unprivileged user namespaces: see `sysctl kernel.unprivileged_userns_clone "
    "user.max_user_namespaces kernel.apparmor_restrict_unprivileged_userns`, or use the Docker engine."
)


async def start(
    spec: StartSpec, progress: Progress, agent: Path, uids: range
) -> tuple[subprocess.Popen[bytes], Handle]:
    """Start a sandbox and return when its agent is ready; if this raises, nothing is left but files."""
    if (spec.directory / "workspace").exists():
        await found.end(spec.lifetime, uids)
    with contextlib.ExitStack() as always:
        async with contextlib.AsyncExitStack() as undo:
            uid = files.prepare(spec.directory, uids)
            (spec.directory / "frozen.json").unlink(missing_ok=True)
            socket = spec.sockets / f"{spec.runtime[:16]}.sock"
            listening = always.enter_context(handoff.listener(socket))
            undo.callback(handoff.remove, socket)
            group = make_group(spec.lifetime, spec.limits)
            undo.push_async_callback(group.remove)
            progress("container")
            launched = launch(_plan(spec, group, agent, uid))
            always.callback(launched.close)
            undo.push_async_callback(end, launched, spec.lifetime, uids)
            monitor = admit(launched, group, spec.limits, spec.lifetime)
            progress("agent")
            try:
                await handoff.handoff_over(launched.handoff, listening, _payload(spec, group), spec.timeout)
                init = await launched.init()
            except SandboxError as exc:
                raise await _explained(exc, launched) from exc
            if init is None:
                raise failed(launched)
            undo.pop_all()
    return launched.process, Handle(directory=spec.directory, socket=socket, monitor=monitor, init=init, group=group)


def make_group(lifetime: str, limits: ResolvedLimits) -> cgroups.Group:
    """The control group of a lifetime; one without controllers where this machine lets us have none."""
    parents = cgroups.discover()
    try:
        return cgroups.create(lifetime, parents, limits)
    except OSError as exc:
        raise error("START_FAILED", f"The control group of the sandbox cannot be made: {exc}.") from exc


def _plan(spec: StartSpec, group: cgroups.Group, agent: Path, uid: int | None) -> Plan:
    return Plan(
        marker=arguments.marker(spec.installation, spec.lifetime),
        directory=spec.directory,
        python=spec.interpreter,
        agent=agent,
        command=COMMAND,
        uid=uid,
        memory=spec.limits.memory,
        file_size=spec.limits.disk,
        pin_cpus=not group.has("cpu"),
    )


def admit(launched: Launched, group: cgroups.Group, limits: ResolvedLimits, lifetime: str) -> ProcessId:
    """Put what waits at the gate into its group and on its CPUs, then let it go; returns the monitor."""
    monitor = ProcessId.of(launched.process.pid)
    if monitor is None:
        raise failed(launched)
    group.join(monitor.pid)
    if not group.has("cpu"):
        os.sched_setaffinity(monitor.pid, cpus.share(limits.cpus, lifetime))
    launched.open_gate()
    return monitor


def _payload(spec: StartSpec, group: cgroups.Group) -> dict[str, Any]:
    """The hand-off; the agent limits what it starts where no control group limits the whole."""
    memory = None if group.has("memory") else spec.limits.memory
    pids = None if group.has("pids") else spec.limits.pids
    return {**spec.handoff, "memory": memory, "pids": pids}


async def _explained(problem: SandboxError, launched: Launched) -> SandboxError:
    """The problem itself if the agent named one; else what bwrap or Python said before they ended."""
    if problem.code != "START_FAILED" or not launched.message():
        return problem
    return failed(launched)


def failed(launched: Launched, otherwise: str = "it said nothing") -> SandboxError:
    """Bubblewrap's own message as an error; ``otherwise``: what to say if there is none."""
    said = launched.message() or otherwise
    remedy = _REMEDY if "namespace" in said or "uid map" in said else None
    return error("START_FAILED", f"bubblewrap could not start the sandbox: {said}.", remedy=remedy)


async def end(launched: Launched, lifetime: str, uids: range) -> None:
    """End all of a start that did not succeed."""
    process = ProcessId.of(launched.process.pid)
    if process is not None:
        await found.kill(process, cgroups.of(process.pid))
    await found.end(lifetime, uids)
    await asyncio.to_thread(launched.process.wait)
