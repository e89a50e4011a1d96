"""Contexts: kernels inside a sandbox, the channels to them, and why one ended."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import NotFound, SandboxError, error
from . import arguments
from .channel import KernelChannel
from .remote import Remote, oom_kills

DEFAULT = "default"
"""The context that cells run in unless another is named."""

_KERNEL_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class CodeContext:
    """A kernel inside a sandbox; code that runs in one context shares variables.

    Belongs to one start of the sandbox: afterwards it raises ``STALE_HANDLE``. A name, given to
    :meth:`Sandbox.run_code` in its place, always means the living kernel of that name.
    """

    id: str
    name: str
    language: str
    runtime: str | None = field(default=None, repr=False, compare=False)


async def create(
    remote: Remote, name: str | None, *, language: str, cwd: str | None, env: Mapping[str, str] | None
) -> CodeContext:
    """See :meth:`AsyncSandbox.create_code_context`."""
    body = {
        "name": None,
        "language": arguments.text("language", language),
        "context": f"context-{secrets.token_hex(4)}" if name is None else arguments.name(name),
        "cwd": arguments.optional_path(cwd, "cwd"),
        "env": arguments.environment(env),
    }
    model = _model(await remote.agent_json("POST", "api/kernels", json=body, repeatable=True))
    return CodeContext(model["id"], model["context"], model["language"], remote.runtime)


class Channels:
    """The open channels of one handle, one for each loop and context."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._open: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[KernelChannel]] = {}

    async def get(self, context: CodeContext | str, language: str) -> KernelChannel:
        """The open channel of ``context``, else a new one; concurrent callers share it."""
        name = context.name if isinstance(context, CodeContext) else arguments.name(context)
        loop = asyncio.get_running_loop()
        key = (loop, context.id if isinstance(context, CodeContext) else name)
        task = self._open.get(key)
        if task is None or _is_of_no_use(task):
            self._forget_closed()
            task = self._open[key] = loop.create_task(self._connect(context, language))
            task.add_done_callback(_is_of_no_use)  # Retrieves an error that nobody waits for any more.
        return await asyncio.shield(task)

    def _forget_closed(self) -> None:
        for key, task in list(self._open.items()):
            if key[0].is_closed() or _is_of_no_use(task):
                self._open.pop(key, None)

    async def close(self) -> None:
        """Close the running loop's channels."""
        here = asyncio.get_running_loop()
        for key in [key for key in list(self._open) if key[0] is here or key[0].is_closed()]:
            task = self._open.pop(key)
            if key[0] is here:
                await _close(task)

    async def _connect(self, context: CodeContext | str, language: str) -> KernelChannel:
        remote = self._remote
        model = await (self._find(context) if isinstance(context, CodeContext) else self._get(context, language))
        socket = await remote.agent_websocket(f"api/kernels/{model['id']}")

        async def diagnose(end: Mapping[str, Any]) -> SandboxError:
            return await why_it_ended(remote, model["context"], end)

        return KernelChannel(remote, model, socket, diagnose)

    async def _get(self, name: str, language: str) -> dict[str, Any]:
        body: dict[str, Any] = {"name": None, "language": language, "context": name, "cwd": None, "env": {}}
        preload = name == DEFAULT and language == "python"
        return _model(await self._remote.agent_json("POST", "api/kernels", json=body, repeatable=True, preload=preload))

    async def _find(self, context: CodeContext) -> dict[str, Any]:
        # Looked at first: to say that a handle is stale, nothing is woken, started or made.
        if context.runtime is not None and (await _look(self._remote)).get("runtime") != context.runtime:
            raise _stale(context)
        try:
            return _model(await self._remote.agent_json("GET", f"api/kernels/{context.id}"))
        except NotFound as problem:
            raise _stale(context) from problem


def _stale(context: CodeContext) -> SandboxError:
    return error(
        "STALE_HANDLE",
        f"The kernel of context {context.name!r} is gone: the handle belongs to it, or to an earlier start.",
        remedy=f"Create it anew, or give its name ({context.name!r}), which always means the living kernel.",
    )


async def _close(task: asyncio.Task[KernelChannel]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not _is_of_no_use(task):
        await task.result().close()


def _is_of_no_use(task: asyncio.Task[KernelChannel]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None or task.result().closed)


def _model(body: dict[str, Any]) -> dict[str, Any]:
    """Check what the agent says of a kernel; its id becomes part of a path."""
    kernel, name, language = body.get("id"), body.get("context"), body.get("language")
    if not (isinstance(kernel, str) and _KERNEL_ID.fullmatch(kernel)):
        raise error("OUTPUT_INVALID", "The sandbox sent a kernel without a usable id.")
    if not (isinstance(name, str) and isinstance(language, str)):
        raise error("OUTPUT_INVALID", "The sandbox sent a kernel without context or language.")
    notice = body.get("notice")
    return {
        "id": kernel,
        "context": name,
        "language": language,
        "created": body.get("created") is True,
        "notice": notice if isinstance(notice, str) else None,
    }


async def why_it_ended(remote: Remote, context: str, end: Mapping[str, Any]) -> SandboxError:
    """The error for a kernel whose channel got a ``dead`` status, or was closed with a code of ours."""
    if end.get("close") == 4404:
        return error("SANDBOX_DESTROYED", f"The sandbox {remote.id!r} was destroyed while it ran this.")
    before = remote.oom_kills
    sandbox = await _look(remote)
    if end.get("close") == 4410:
        why = remote.previous_end or sandbox.get("error") or "it was stopped"
        return error("KERNEL_DIED", f"The sandbox {remote.id!r} ended while it ran this: {why}.", reason="stopped")
    return _death(context, end, out_of_memory=oom_kills(sandbox) > before)


async def _look(remote: Remote) -> dict[str, Any]:
    try:
        sandbox = (await remote.ask("GET")).get("sandbox")
    except SandboxError:
        return {}  # The diagnosis is then less exact; the end itself is what has to be told.
    return sandbox if isinstance(sandbox, dict) else {}


def _death(context: str, end: Mapping[str, Any], *, out_of_memory: bool) -> SandboxError:
    said, signal, exit_code = end.get("reason"), end.get("signal"), end.get("exit_code")
    facts: dict[str, Any] = {
        "context": context,
        "signal": signal if isinstance(signal, int) else None,
        "exit_code": exit_code if isinstance(exit_code, int) else None,
    }
    if out_of_memory:
        return error(
            "KERNEL_DIED",
            f"The kernel of context {context!r} was killed: the sandbox ran out of memory.",
            remedy="Give it more with `limits`; the next cell gets a new kernel.",
            reason="out_of_memory",
            **facts,
        )
    why = f": {said[:500].rstrip('.')}." if isinstance(said, str) and said else "."
    return error("KERNEL_DIED", f"The kernel of context {context!r} died{why}", reason="died", **facts)
