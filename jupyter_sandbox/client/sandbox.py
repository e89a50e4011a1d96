"""A handle to one sandbox, for ordinary code: the blocking face of :class:`AsyncSandbox`.

It works in a script, in a notebook whose loop is running, from several threads and after a fork. A KeyboardInterrupt
stops what runs in the sandbox, and is then raised.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

from ..options import SandboxOptions
from .async_sandbox import AsyncSandbox
from .loop import Caller

T = TypeVar("T")
P = ParamSpec("P")

_CALLBACKS = ("progress", "on_stdout", "on_stderr", "on_result", "on_error")


def _blocking(
    method: Callable[Concatenate[AsyncSandbox, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Sandbox, P], T]:
    """``method`` as one that blocks; callbacks run in the thread that calls."""

    @functools.wraps(method)
    def call(self: Sandbox, /, *args: P.args, **kwargs: P.kwargs) -> T:
        caller = Caller()
        for name in _CALLBACKS:
            if callable(function := kwargs.get(name)):
                kwargs[name] = caller.here(function)
        return caller.run(method(self._inner, *args, **kwargs))

    call.__qualname__ = f"Sandbox.{method.__name__}"
    call.__module__ = __name__
    return call


class Sandbox:
    """A sandbox by its ID: files, commands and code in it. Nothing is started before the first operation.

    A handle follows its ID, also over sleep, stop and destroy, and may be shared by threads. Made by
    :func:`jupyter_sandbox.get_sandbox`; subclass it to add methods of your own
    (``get_sandbox(…, sandbox_class=Mine)``). Callbacks run in the thread that calls.

    Parameters
    ----------
    sandbox_id:
        A normalized ID (:func:`jupyter_sandbox.ids.normalize`).
    options:
        What was given for the sandbox. Kept with it; what is not given stays as it is.
    environment:
        What the environment gives. Default: what it gives now.
    """

    async_class: ClassVar[type[AsyncSandbox]] = AsyncSandbox
    """What the blocking methods call."""

    def __init__(
        self,
        sandbox_id: str,
        options: SandboxOptions | None = None,
        environment: SandboxOptions | None = None,
    ) -> None:
        self._inner = self.async_class(sandbox_id, options, environment)

    @property
    def id(self) -> str:
        """The normalized ID."""
        return self._inner.id

    @property
    def previous_end(self) -> str | None:
        """Why the former run of this sandbox ended, so that its variables are gone; None if there was none."""
        return self._inner.previous_end

    @property
    def lost_contexts(self) -> tuple[str, ...]:
        """The contexts of former runs that nobody has used since: their variables are gone. As of the last start."""
        return self._inner.lost_contexts

    @property
    def used(self) -> bool:
        """Whether an operation of this handle may have created the sandbox."""
        return self._inner.used

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    start = _blocking(AsyncSandbox.start)
    status = _blocking(AsyncSandbox.status)
    sleep = _blocking(AsyncSandbox.sleep)
    wake = _blocking(AsyncSandbox.wake)
    extend = _blocking(AsyncSandbox.extend)
    destroy = _blocking(AsyncSandbox.destroy)
    close = _blocking(AsyncSandbox.close)

    exec = _blocking(AsyncSandbox.exec)

    create_code_context = _blocking(AsyncSandbox.create_code_context)
    run_code = _blocking(AsyncSandbox.run_code)
    channel = _blocking(AsyncSandbox.channel)

    write_file = _blocking(AsyncSandbox.write_file)
    read_file = _blocking(AsyncSandbox.read_file)
    list_files = _blocking(AsyncSandbox.list_files)
    mkdir = _blocking(AsyncSandbox.mkdir)
    delete_file = _blocking(AsyncSandbox.delete_file)
    move_file = _blocking(AsyncSandbox.move_file)
    exists = _blocking(AsyncSandbox.exists)
