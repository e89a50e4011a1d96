"""A sandbox for the length of a ``with`` block."""

from __future__ import annotations

from types import TracebackType
from typing import Unpack

from .. import ids
from ..options import SandboxOptions, from_environment
from .async_sandbox import AsyncSandbox
from .handles import GivenOptions
from .sandbox import Sandbox


def temporary_sandbox(**options: Unpack[GivenOptions]) -> TemporarySandbox:
    """A new sandbox with an ID that nobody else has, destroyed at the end of the block, whatever happened in it.

    Takes the options of :func:`get_sandbox`, and checks them at once.

    Examples
    --------
    >>> from jupyter_sandbox import temporary_sandbox
    >>> with temporary_sandbox() as sandbox:
    ...     sandbox.run_code("1 + 1").text
    '2'

    In a coroutine, ``async with temporary_sandbox() as sandbox`` gives an :class:`AsyncSandbox`.
    """
    return TemporarySandbox(SandboxOptions.from_json(options), from_environment())


class TemporarySandbox:
    """What :func:`temporary_sandbox` returns, for ``with`` and for ``async with``."""

    def __init__(self, options: SandboxOptions, environment: SandboxOptions) -> None:
        self._id = ids.temporary()
        self._options = options
        self._environment = environment
        self._blocking: Sandbox | None = None
        self._async: AsyncSandbox | None = None

    def __enter__(self) -> Sandbox:
        self._blocking = Sandbox(self._id, self._options, self._environment)
        return self._blocking

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._blocking is not None
        with self._blocking as sandbox:
            if sandbox.used:
                sandbox.destroy()

    async def __aenter__(self) -> AsyncSandbox:
        self._async = AsyncSandbox(self._id, self._options, self._environment)
        return self._async

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._async is not None
        async with self._async as sandbox:
            if sandbox.used:
                await sandbox.destroy()
