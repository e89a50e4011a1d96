"""One event loop in one daemon thread, on which the blocking face of the client runs.

It makes blocking calls work in a plain script, in a notebook whose own loop is running, and from several threads.
A forked child gets a loop of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

_STOP_GRACE = 5.0
"""Seconds that the loop's thread may take to end when the interpreter exits."""


class _Background:
    """The loop and its thread, started by the first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Loops of a parent process: never touched again, because closing one would take its sockets out of the
        # epoll set that the parent still uses.
        self._inherited: list[Any] = []

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(loop,), name="jupyter_sandbox", daemon=True)
                self._thread.start()
                self._loop = loop
            return self._loop

    def is_running(self) -> bool:
        return self._loop is not None

    def is_current_thread(self) -> bool:
        return self._thread is threading.current_thread()

    def forget(self) -> None:
        """In a forked child: the thread is gone, the loop belongs to the parent."""
        self._inherited.append((self._loop, self._thread))
        self._lock = threading.Lock()
        self._loop = self._thread = None

    def stop(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_STOP_GRACE)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


_background = _Background()
os.register_at_fork(after_in_child=_background.forget)
atexit.register(_background.stop)


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop that this process shares, running in a daemon thread; a new one after a fork."""
    return _background.loop()


def is_running() -> bool:
    """Whether the background loop was started."""
    return _background.is_running()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` on the background loop and block the calling thread until it ends.

    A KeyboardInterrupt cancels the coroutine, waits until it has let go of what it held, and is raised again; a
    second one is raised at once.
    """
    return Caller().run(coroutine)


class Caller:
    """A thread that blocks for a coroutine, and runs the callbacks which that coroutine asks for.

    Callbacks of the user so run in the thread that made the call, where prints, widgets and thread-bound objects
    work as in any other line of the cell.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended = False

    def here(self, function: Callable[P, object] | None) -> Callable[P, Awaitable[None]] | None:
        """``function`` as the coroutine may await it: it runs in the calling thread."""
        if function is None:
            return None

        async def call(*args: P.args, **kwargs: P.kwargs) -> None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._jobs.put(lambda: _call_and_tell(done, lambda: function(*args, **kwargs)))
            await done

        return call

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """As :func:`run`."""
        if _background.is_current_thread():
            coroutine.close()
            raise RuntimeError("A blocking call on the background loop would wait for itself; use AsyncSandbox there.")
        task: list[asyncio.Task[T]] = []

        def start() -> None:
            task.append(loop.create_task(coroutine))
            task[0].add_done_callback(self._end)

        def stop() -> None:
            if task:
                task[0].cancel()
            else:  # The interrupt came before the start.
                coroutine.close()
                self._end(None)

        loop = background_loop()
        try:
            loop.call_soon_threadsafe(start)
            self._work()
        except BaseException:
            # KeyboardInterrupt, or an error of a callback: what runs remotely must stop too.
            loop.call_soon_threadsafe(stop)
            self._work()
            raise
        return task[0].result()

    def _end(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and not task.cancelled():
            task.exception()  # Retrieved: an error after an interrupt is nobody's.
        self._ended = True
        self._jobs.put(None)

    def _work(self) -> None:
        while not self._ended:
            if (job := self._jobs.get()) is not None:
                job()


def settle(future: asyncio.Future[None]) -> None:
    """Give ``future`` its result, unless it has one or was cancelled meanwhile."""
    if not future.done():
        future.set_result(None)


def _call_and_tell(done: asyncio.Future[None], function: Callable[[], object]) -> None:
    try:
        function()
    finally:
        # Also when it raises: the error goes up in the calling thread, which then cancels the coroutine.
        done.get_loop().call_soon_threadsafe(settle, done)
