"""The sandboxes that one notebook uses: a handle for each, a channel for each context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..client.loop import Caller
from .safe import clean_text

if TYPE_CHECKING:
    from ..client.async_sandbox import AsyncSandbox
    from ..client.channel import KernelChannel

Attach = Callable[[str, "KernelChannel"], None]


@dataclass(frozen=True)
class Opened:
    """A channel to run a cell on. ``notice``: one line when variables of an earlier kernel are gone, else None."""

    handle: AsyncSandbox
    channel: KernelChannel
    notice: str | None


class Sessions:
    """Handles and channels, kept open between cells.

    Parameters
    ----------
    attach:
        Called on the client's loop with the ID and every new channel, before anything runs on it.
    """

    def __init__(self, attach: Attach) -> None:
        self._attach = attach
        self._handles: dict[str, AsyncSandbox] = {}
        self._channels: dict[tuple[str, str], KernelChannel] = {}

    def handle(self, sandbox_id: str) -> AsyncSandbox:
        """The one handle of ``sandbox_id`` in this notebook."""
        from .. import get_async_sandbox

        fresh = get_async_sandbox(sandbox_id)
        return self._handles.setdefault(fresh.id, fresh)

    def open(self, sandbox_id: str, context: str, options: dict[str, Any], on_step: Callable[[str], None]) -> Opened:
        """Have the sandbox running with ``options`` and a channel to ``context``; blocks, and ■ stops it.

        ``on_step`` is called in this thread with each step of a start.
        """
        caller = Caller()
        return caller.run(self._open(sandbox_id, context, options, caller.here(on_step)))

    def start(self, sandbox_id: str, options: dict[str, Any], on_step: Callable[[str], None]) -> None:
        """Have the sandbox running with ``options``; blocks, and ■ stops it."""
        caller = Caller()
        caller.run(self._apply(sandbox_id, options, caller.here(on_step)))

    async def _open(self, sandbox_id: str, context: str, options: dict[str, Any], on_step: Any) -> Opened:
        handle = self.handle(sandbox_id)
        if options:
            await self._apply(handle.id, options, on_step)
        known = self._channels.get((handle.id, context))
        if known is not None and not known.closed:
            return Opened(handle, known, None)
        if not options:
            await handle.start(progress=on_step)
        channel = await handle.channel(context)
        if channel is known:
            return Opened(handle, channel, None)
        self._channels[handle.id, context] = channel
        self._attach(handle.id, channel)
        return Opened(handle, channel, _lost(handle, channel, known))

    async def _apply(self, sandbox_id: str, options: dict[str, Any], on_step: Any) -> None:
        """Start the sandbox with its options; a handle of its own, because those of a handle never change."""
        from .. import get_async_sandbox

        giver = get_async_sandbox(sandbox_id, **options)
        try:
            await giver.start(progress=on_step)
        finally:
            await giver.close()

    def forget(self, sandbox_id: str) -> None:
        """Let go of a sandbox's handle and channels; blocks."""
        handle = self._handles.pop(sandbox_id, None)
        for key in [key for key in self._channels if key[0] == sandbox_id]:
            del self._channels[key]
        if handle is not None:
            Caller().run(handle.close())

    def forget_all(self) -> None:
        """Let go of everything; the sandboxes go on."""
        for sandbox_id in list(self._handles):
            self.forget(sandbox_id)


def _lost(handle: AsyncSandbox, channel: KernelChannel, known: KernelChannel | None) -> str | None:
    """What a user has to be told about a new kernel: that an earlier one, and its variables, are gone, and why.

    Told once for each context: by the first cell of its new kernel, and in a notebook whose own channel led to the
    former one by its next cell, whoever has started the new one.
    """
    had_one = known is not None and known.runtime != channel.runtime
    was_lost = channel.created and channel.context in handle.lost_contexts
    why = channel.notice or (handle.previous_end if had_one or was_lost else None)
    if why is None:
        return None
    end = f"It started anew, and the variables of context {channel.context!r} are gone: {why}"
    said = clean_text(channel.notice or end).split("\n")[0]
    return f"[sandbox {handle.id}] {said[:500].rstrip('.')}."
