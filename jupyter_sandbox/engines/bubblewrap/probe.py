"""Whether bubblewrap works on this machine: tried with everything that a real sandbox has, but the agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
from pathlib import Path

from ...errors import SandboxError
from ...options import ResolvedLimits
from .. import cgroups
from ..base import Interpreter, Probe
from . import arguments, binary, files, start
from .isolation import isolation
from .launch import Plan, launch

_CHECK = "import os, sys; sys.exit(os.getuid() != 1000 or os.getcwd() != '/workspace')"
_PATIENCE = 20.0


async def probe(uids: range) -> Probe:
    """Run Python in a sandbox, and say what is enforced for it here."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _try(uids)
    except SandboxError as exc:
        return Probe(False, exc.message, exc.remedy)
    except OSError as exc:
        return Probe(False, f"bubblewrap cannot be started: {exc}.")
    except TimeoutError:
        return Probe(False, f"A sandbox of bubblewrap did not end within {_PATIENCE:.0f} seconds.")


async def _try(uids: range) -> Probe:
    limits, lifetime = ResolvedLimits(), secrets.token_hex(16)
    with contextlib.ExitStack() as always:
        directory = Path(always.enter_context(tempfile.TemporaryDirectory(prefix="jsb-probe-")))
        always.callback(files.delete, directory / "lifetime")
        (directory / "lifetime").mkdir(mode=0o700)
        async with contextlib.AsyncExitStack() as undo:
            group = start.make_group(lifetime, limits)
            undo.push_async_callback(group.remove)
            plan = _plan(directory / "lifetime", lifetime, group, uids)
            launched = launch(plan)
            always.callback(launched.close)
            undo.push_async_callback(start.end, launched, lifetime, uids)
            monitor = start.admit(launched, group, limits, lifetime)
            await monitor.ended()
            if (code := launched.process.wait()) != 0:
                raise start.failed(launched, f"Python in it ended with exit code {code}")
            found = binary.find()
            return Probe(
                True,
                isolation=isolation(group, limits),
                facts={
                    "bwrap": str(found.path),
                    "version": found.version,
                    "cgroup": {name: str(Path(path).parent) for name, path in group.paths.items()},
                    "freeze": "cgroup" if group.has("freezer") else "signals",
                },
            )


def _plan(directory: Path, lifetime: str, group: cgroups.Group, uids: range) -> Plan:
    return Plan(
        marker=arguments.marker("probe", lifetime),
        directory=directory,
        python=Interpreter(sys.executable, sys.prefix, sys.base_prefix),
        agent=Path(os.devnull),
        command=("-I", "-c", _CHECK),
        uid=files.prepare(directory, uids),
        memory=ResolvedLimits().memory,
        file_size=ResolvedLimits().disk,
        pin_cpus=not group.has("cpu"),
    )
