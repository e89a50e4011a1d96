"""One sandbox as a handle sees it: made when first needed, asked through the agent proxy, made anew when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from .. import ids, models
from ..errors import SandboxError, error
from ..options import SandboxOptions, from_environment
from . import ndjson

if TYPE_CHECKING:
    import aiohttp

    from .connection import Connection

T = TypeVar("T")

RUNTIME_HEADER = "X-Sandbox-Runtime"
"""Says of an agent's answer which start of the sandbox it comes from (docs/protocol.md)."""

Progress = Callable[[str], Awaitable[None] | None]

_GONE = frozenset({"SANDBOX_NOT_FOUND", "SANDBOX_ASLEEP"})
"""Answers of the manager that prove that nothing was done in the sandbox."""


@dataclass
class _Here:
    """What a handle has on one loop."""

    connection: Connection
    making: asyncio.Lock = field(default_factory=asyncio.Lock)


class Remote:
    """What all methods of one handle share. Usable on several loops; each gets a :class:`Connection` of its own.

    Parameters
    ----------
    sandbox_id:
        Normalized.
    options, environment:
        What was given with the handle, and by the environment when it was made.
    """

    def __init__(self, sandbox_id: str, options: SandboxOptions | None, environment: SandboxOptions | None) -> None:
        ids.check(sandbox_id)
        self.id = sandbox_id
        self.options = options or SandboxOptions()
        self.environment = from_environment() if environment is None else environment
        self.previous_end: str | None = None
        self.lost_contexts: tuple[str, ...] = ()
        self.runtime: str | None = None
        self.oom_kills = 0
        self.used = False
        self._made = False
        self._loops: dict[asyncio.AbstractEventLoop, _Here] = {}
        self._path = f"/sandboxes/-/{sandbox_id}"
        weakref.finalize(self, _let_go, self._loops).atexit = False

    # --- connections -------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """The running loop's connection, held until :meth:`close`."""
        return self._here().connection

    def _here(self) -> _Here:
        from .connection import (
            Connection,
        )  # The transport takes 0.2 s to import: the first request pays, not %load_ext.

        loop = asyncio.get_running_loop()
        for closed in [known for known in list(self._loops) if known.is_closed()]:
            self._loops.pop(closed, None)
        if loop not in self._loops:
            self._loops[loop] = _Here(Connection.acquire())
        return self._loops[loop]

    async def close(self) -> None:
        """Let go of the running loop's connection."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.connection.release()

    # --- the manager -------------------------------------------------------------------------------

    async def make(self, *, preload: bool = False, progress: Progress | None = None) -> None:
        """Get or create the sandbox, and have it running.

        Parameters
        ----------
        preload:
            The context ``default`` will be asked for at once.
        progress:
            Called with every step of a start.
        """
        self.used = True
        headers = {"Accept": "application/x-ndjson"}
        body = self._wish(preload)
        request = self.connection().request("PUT", self._path, json=body, headers=headers, repeatable=True)
        async with request as response:
            async for line in ndjson.objects(response.content):
                if progress is not None and isinstance(step := line.get("step"), str):
                    await called(progress(step))
                if "sandbox" in line:
                    self._note(line)
                    self._made = True
                    return
        raise error("MANAGER_UNAVAILABLE", "The sandbox manager went away while the sandbox was starting.")

    async def _make_once(self, preload: bool) -> None:
        """As :meth:`make`, unless it was done; concurrent first operations share it."""
        if not self._made:
            async with self._here().making:
                if not self._made:
                    await self.make(preload=preload)

    async def wake(self) -> None:
        """Have the sandbox running, if it exists."""
        await self.ask("POST", "/wake", json=self._wish(preload=False), repeatable=True)
        self._made = True

    def _wish(self, preload: bool) -> dict[str, Any]:
        from . import elsewhere

        interpreter = {"executable": sys.executable, "prefix": sys.prefix, "base_prefix": sys.base_prefix}
        return {
            "options": self.options.to_json(),
            "environment": self.environment.to_json(),
            # A manager elsewhere has another file system; there it is the Python of the manager itself.
            "interpreter": interpreter if elsewhere.from_environment() is None else None,
            "start": True,
            "preload": preload,
        }

    def forget(self) -> None:
        """Have the next operation make the sandbox (again)."""
        self._made = False

    async def ask(self, method: str, suffix: str = "", **kwargs: Any) -> dict[str, Any]:
        """Ask the manager about this sandbox; remembers what the answer says of it."""
        answer = await self.connection().json(method, self._path + suffix, **kwargs)
        self._note(answer)
        return answer

    async def destroy(self) -> None:
        """Destroy the sandbox, if there is one."""
        await self.connection().json("DELETE", self._path, repeatable=True)
        self.forget()
        self.previous_end = None
        self.lost_contexts = ()

    def _note(self, answer: Mapping[str, Any]) -> None:
        sandbox = answer.get("sandbox")
        if not isinstance(sandbox, dict):
            return
        end = sandbox.get("previous_end")
        self.previous_end = end if isinstance(end, str) else None
        lost = sandbox.get("lost_contexts")
        self.lost_contexts = tuple(map(str, lost)) if isinstance(lost, list) else ()
        self.oom_kills = oom_kills(sandbox)

    # --- the agent ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def agent(
        self, method: str, path: str, *, repeatable: bool | None = None, preload: bool = False, **kwargs: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask the sandbox's agent; makes the sandbox first, and once more if it is gone and nothing was done.

        Parameters
        ----------
        path:
            Below the agent's root, for example ``"exec"``.
        repeatable:
            Whether asking twice does the same as asking once. Default: for GET.
        """
        repeatable = method == "GET" if repeatable is None else repeatable
        await self._make_once(preload)
        target = f"{self._path}/agent/{path}"
        async with contextlib.AsyncExitStack() as stack:
            request = self.connection().request(method, target, repeatable=repeatable, **kwargs)
            try:
                response = await stack.enter_async_context(request)
            except SandboxError as problem:
                if not _nothing_was_done(problem, repeatable):
                    raise
                await self.make(preload=preload)
                request = self.connection().request(method, target, repeatable=repeatable, **kwargs)
                response = await stack.enter_async_context(request)
            self.runtime = response.headers.get(RUNTIME_HEADER)
            yield response

    async def agent_json(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        """As :meth:`agent`, for a JSON object; an empty answer is ``{}``."""
        from .connection import MAX_ANSWER, read_bounded

        async with self.agent(method, path, **kwargs) as response:
            body = await read_bounded(response, MAX_ANSWER)
        return ndjson.parse(body) if body else {}

    async def agent_websocket(self, path: str) -> aiohttp.ClientWebSocketResponse:
        """Open a channel to a kernel; ``path`` is the kernel's, for example ``"api/kernels/ID"``."""
        import aiohttp

        try:
            return await self.connection().websocket(f"{self._path}/agent/{path}/channels")
        except aiohttp.WSServerHandshakeError as problem:
            # A refused upgrade has no readable body; asking for the same kernel says why.
            await self.agent_json("GET", path)
            raise error("OUTPUT_INVALID", f"The sandbox did not open the channel ({problem.status}).") from problem


def _nothing_was_done(problem: SandboxError, repeatable: bool) -> bool:
    return problem.code in _GONE or (repeatable and problem.code == "AGENT_UNREACHABLE")


def oom_kills(sandbox: Mapping[str, Any]) -> int:
    """How often the engine saw the sandbox run out of memory, as a status says; 0 where it cannot know."""
    usage = sandbox.get("usage")
    count = usage.get("oom_kills") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0


def read(cls: type[T], body: Any) -> T:
    """Build the dataclass ``cls`` of :mod:`jupyter_sandbox.models` from an answer, or raise ``OUTPUT_INVALID``."""
    try:
        return models.from_json(cls, body)
    except (TypeError, ValueError, AttributeError, KeyError) as problem:
        raise error("OUTPUT_INVALID", f"The answer is not a {cls.__name__}: {problem}.") from problem


async def called(result: Awaitable[None] | object) -> None:
    """Wait for a user's callback, if it is a coroutine."""
    if isinstance(result, Awaitable):
        await result


def _let_go(loops: dict[asyncio.AbstractEventLoop, _Here]) -> None:
    """When a handle is gone without having been closed."""
    for loop, here in list(loops.items()):
        with contextlib.suppress(RuntimeError):  # The loop is closed, and its sockets with it.
            loop.call_soon_threadsafe(here.connection.release_soon)
