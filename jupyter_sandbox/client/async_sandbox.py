"""A handle to one sandbox, for coroutines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, overload

from ..errors import NotFound, SandboxError, error
from ..models import ExecResult, Execution, FileInfo, SandboxStatus
from ..options import SandboxOptions, parse_duration
from . import arguments, commands, contexts, files
from . import code as running
from .channel import KernelChannel
from .contexts import DEFAULT, CodeContext
from .remote import Remote, read


class AsyncSandbox:
    """A sandbox by its ID: files, commands and code in it. Nothing is started before the first operation.

    A handle may be used on several event loops; each has its own connection. Made by
    :func:`jupyter_sandbox.get_async_sandbox`.

    Parameters
    ----------
    sandbox_id:
        A normalized ID (:func:`jupyter_sandbox.ids.normalize`).
    options:
        What was given for the sandbox. Kept with it; what is not given stays as it is.
    environment:
        What the environment gives. Default: what it gives now.
    """

    def __init__(
        self,
        sandbox_id: str,
        options: SandboxOptions | None = None,
        environment: SandboxOptions | None = None,
    ) -> None:
        self._remote = Remote(sandbox_id, options, environment)
        self._channels = contexts.Channels(self._remote)

    @property
    def id(self) -> str:
        """The normalized ID."""
        return self._remote.id

    @property
    def previous_end(self) -> str | None:
        """Why the former run of this sandbox ended, so that its variables are gone; None if there was none."""
        return self._remote.previous_end

    @property
    def lost_contexts(self) -> tuple[str, ...]:
        """The contexts of former runs that nobody has used since: their variables are gone. As of the last start."""
        return self._remote.lost_contexts

    @property
    def used(self) -> bool:
        """Whether an operation of this handle may have created the sandbox."""
        return self._remote.used

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- lifecycle ---------------------------------------------------------------------------------

    async def start(self, *, progress: Callable[[str], Awaitable[None] | None] | None = None) -> None:
        """Create the sandbox if there is none, and have it running. Every other operation does so by itself.

        Parameters
        ----------
        progress:
            Called with each step of a start: ``"image"``, ``"container"``, ``"agent"``, ``"kernel"``.
        """
        await self._remote.make(progress=arguments.callback("progress", progress))

    async def status(self) -> SandboxStatus:
        """Return what is known of the sandbox, without waking it; ``state`` is ``"absent"`` if there is none."""
        try:
            answer = await self._remote.ask("GET")
        except NotFound as problem:
            if problem.code != "SANDBOX_NOT_FOUND":
                raise
            return SandboxStatus(id=self.id, state="absent")
        if not isinstance(sandbox := answer.get("sandbox"), dict):
            raise error("OUTPUT_INVALID", "The sandbox manager sent no status.")
        return read(SandboxStatus, sandbox)

    async def sleep(self, *, force: bool = False) -> None:
        """Put the sandbox to sleep: memory and files are kept, nothing runs.

        Parameters
        ----------
        force:
            Also when something runs in it, which otherwise raises ``SANDBOX_BUSY``.
        """
        await self._remote.ask("POST", "/sleep", json={"force": bool(force)}, repeatable=True)

    async def wake(self) -> None:
        """Wake a sandbox that exists; ``SANDBOX_NOT_FOUND`` if it does not. Every operation wakes by itself."""
        await self._remote.wake()

    async def extend(self, duration: str | float) -> None:
        """Put off its sleep: it does not fall asleep by itself before ``duration`` from now has passed.

        Never brings the sleep nearer, and nothing changes for a sandbox with ``keep_alive``.

        Parameters
        ----------
        duration:
            Seconds, or ``"30s"``, ``"5m"``, ``"1h"``.

        Raises
        ------
        Conflict
            ``SANDBOX_ASLEEP``: it does not run; wake it first.
        """
        seconds = parse_duration(duration)
        await self._remote.ask("POST", "/extend", json={"duration": seconds}, repeatable=True)

    async def destroy(self) -> None:
        """Remove the sandbox with all its files and processes; nothing happens if there is none.

        The ID can be used again at once, for a new sandbox.
        """
        await self._channels.close()
        await self._remote.destroy()

    async def close(self) -> None:
        """Let go of the connection; the sandbox goes on. The handle can still be used, and connects anew."""
        await self._channels.close()
        await self._remote.close()

    # --- commands ----------------------------------------------------------------------------------

    async def exec(
        self,
        command: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - of the remote work, not of this call
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        check: bool = False,
    ) -> ExecResult:
        """Run one command with bash, and return when it and all that it started in the foreground have ended.

        Parameters
        ----------
        command:
            A line or a script for bash. A program that is not found gives exit code 127.
        timeout:
            Seconds after which the command and every descendant is killed; the result then has ``timed_out`` and
            exit code 124.
        cwd:
            Working directory. Default ``/workspace``.
        env:
            Variables beside those of the sandbox.
        stdin:
            What the command reads; nothing by default.
        check:
            Raise unless the exit code is 0.

        Returns
        -------
        ExecResult
            At most 256 MiB of output; a command that writes more is stopped with ``TOO_LARGE``.

        Raises
        ------
        CommandFailed
            With ``check``: the exit code is not 0; ``details["result"]`` has the output.
        ExecutionTimeout
            With ``check``: the command timed out.
        """
        return await commands.execute(
            self._remote, command, timeout=timeout, cwd=cwd, env=env, stdin=stdin, check=check
        )

    # --- code --------------------------------------------------------------------------------------

    async def create_code_context(
        self,
        name: str | None = None,
        *,
        language: str = "python",
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CodeContext:
        """Start a kernel with variables of its own, or return the living one of that name.

        Parameters
        ----------
        name:
            Default: one that nobody else has.
        language:
            The sandbox needs a kernel for it (``LANGUAGE_NOT_FOUND``).
        cwd, env:
            Working directory and variables of a new kernel.
        """
        return await contexts.create(self._remote, name, language=language, cwd=cwd, env=env)

    async def run_code(
        self,
        code: str,
        *,
        context: CodeContext | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the remote work, not of this call
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        on_result: Callable[[Any], Any] | None = None,
        on_error: Callable[[Any], Any] | None = None,
    ) -> Execution:
        """Run code as a cell would, and return what it gave. Its exception is part of the result, not raised.

        Parameters
        ----------
        code:
            Source in the language of the context; IPython syntax included.
        context:
            Where to run it: a :class:`CodeContext`, or the name of one. Default: ``"default"``.
        timeout:
            Seconds after which the code is interrupted, after 5 more with force. The kernel is not killed: its
            variables stay.
        on_stdout, on_stderr, on_result, on_error:
            Called with text, :class:`Result` and :class:`ExecutionError` as they come.

        Returns
        -------
        Execution
            At most 256 MiB of output; what is beyond goes to the callbacks only, and a line says so.

        Raises
        ------
        ExecutionTimeout
            It ran longer than ``timeout``; ``details["still_busy"]`` says whether the interrupt was in vain.
        KernelDied
            The kernel or its sandbox ended; the message says why.
        """
        source, seconds = arguments.text("code", code), arguments.timeout(timeout)
        callbacks = running.Callbacks(on_stdout, on_stderr, on_result, on_error)
        where = DEFAULT if context is None else context
        try:
            return await running.run(await self.channel(where), source, seconds, callbacks)
        except SandboxError as problem:
            if problem.details.get("sent") is not False:
                raise
            # The channel broke since the last cell, and nothing of this one was sent.
            return await running.run(await self.channel(where), source, seconds, callbacks)

    async def channel(self, context: CodeContext | str = DEFAULT, *, language: str = "python") -> KernelChannel:
        """Return the handle's open channel to a context's kernel, which is started if there is none.

        Parameters
        ----------
        context:
            A name, or a :class:`CodeContext`.
        language:
            Of a context that has to be started.
        """
        return await self._channels.get(context, arguments.text("language", language))

    # --- files -------------------------------------------------------------------------------------

    async def write_file(self, path: str, content: str | bytes, *, encoding: str = "utf-8") -> None:
        """Write a file as a whole: readers see the old content or the new. Missing directories are made.

        Parameters
        ----------
        path:
            Relative paths lie below ``/workspace``.
        content:
            Text, written in ``encoding``, or bytes.
        """
        await files.write(self._remote, path, content, encoding)

    @overload
    async def read_file(self, path: str, *, encoding: str = "utf-8") -> str: ...

    @overload
    async def read_file(self, path: str, *, encoding: None) -> bytes: ...

    async def read_file(self, path: str, *, encoding: str | None = "utf-8") -> str | bytes:
        """Return the content of a file, at most 1 GiB: text, or bytes with ``encoding=None``."""
        return await files.read_whole(self._remote, path, encoding)

    async def list_files(self, path: str = ".", *, recursive: bool = False, hidden: bool = False) -> list[FileInfo]:
        """Return the entries of a directory, sorted by path.

        Parameters
        ----------
        recursive:
            With everything below it.
        hidden:
            With names that begin with a dot.
        """
        return await files.entries(self._remote, path, recursive=recursive, hidden=hidden)

    async def mkdir(self, path: str, *, parents: bool = True) -> None:
        """Make a directory; ``parents`` also makes those above it, and accepts one that exists."""
        await files.make_directory(self._remote, path, parents=parents)

    async def delete_file(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file or a link; a directory, with all that it has, only with ``recursive``."""
        await files.delete(self._remote, path, recursive=recursive)

    async def move_file(self, source: str, destination: str) -> None:
        """Move or rename a file or a directory; a file at ``destination`` is replaced."""
        await files.move(self._remote, source, destination)

    async def exists(self, path: str) -> bool:
        """Whether there is a file or directory at ``path``."""
        return await files.exists(self._remote, path)
