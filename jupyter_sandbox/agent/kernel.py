"""One kernel: its process, whether it is busy, its interrupts and restarts, and its death."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Set

from ..errors import error
from . import wire
from .busy import Busy
from .child import Child, Exit
from .launch import Launch
from .memory import oom_kills
from .sockets import ZmqSocket, dealer, subscriber
from .spawning import Spawner
from .web import now

if TYPE_CHECKING:
    from .channels import Channel

_SHUTDOWN_SECONDS = 1.0


class Death(NamedTuple):
    """Why a kernel ended, for people and for programs."""

    reason: str
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    wanted: bool = False

    def status(self) -> Dict[str, Any]:
        """The content of the ``status`` message that each channel gets."""
        facts = {"reason": self.reason, "exit_code": self.exit_code, "signal": self.signal}
        return {"execution_state": "dead", **facts}


class Kernel:
    """A kernel of a context. It keeps its id through restarts; ``died`` is done when it has ended for good.

    It must be made inside the running loop.
    """

    def __init__(self, context: str, launch: Launch, spawner: Spawner) -> None:
        self.id = str(os.urandom(16).hex())
        self.context = context
        self.launcher = launch.launcher
        self.channels: Set[Channel] = set()
        self.last_activity = now()
        self.died: asyncio.Future[Death] = asyncio.get_running_loop().create_future()
        self._spawner = spawner
        self._stopping = False
        self._restarting = asyncio.Lock()
        self._begin(launch)

    def _begin(self, launch: Launch) -> None:
        self.connection = launch.connection
        self._launch = launch
        self._alive = False
        self._began = now()
        self._busy = Busy()
        self._oom_kills = oom_kills()
        self.child = Child(launch.control)
        self._control = dealer(self.connection, "control", os.urandom(8).hex().encode())
        # ipykernel publishes its status below "kernel."; what another kernel does is not known, so all is read.
        topics = (b"kernel.",) if self.launcher.language == "python" else (b"",)
        self._iopub = subscriber(self.connection, *topics)
        self._tasks = [
            asyncio.ensure_future(self._watch_control(self._control)),
            asyncio.ensure_future(self._watch_status(self._iopub)),
            asyncio.ensure_future(self._watch_process(self.child)),
        ]
        self.nudge()

    # --- what it is doing ------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``starting``, ``idle``, ``busy`` or ``dead``."""
        if self.died.done():
            return "dead"
        return "busy" if self._busy.since else "idle" if self._alive else "starting"

    @property
    def busy_since(self) -> Optional[str]:
        """When it began what it is doing, if it is doing anything. One that starts does: somebody waits for it."""
        return self._busy.since or (None if self._alive or self.died.done() else self._began)

    def model(self) -> Dict[str, Any]:
        """As a Jupyter server describes a kernel, with context and language."""
        return {
            "id": self.id,
            "name": self.launcher.name,
            "last_activity": self.last_activity,
            "execution_state": self.state,
            "connections": len(self.channels),
            "context": self.context,
            "language": self.launcher.language,
        }

    def nudge(self) -> None:
        """Ask the kernel for a sign of life: a reply on control, and its status on iopub."""
        self._control.send(wire.signed(self.connection.key, wire.message("kernel_info_request", {})))

    async def _watch_control(self, control: ZmqSocket) -> None:
        while await control.receive() is not None:
            self._alive = True

    async def _watch_status(self, iopub: ZmqSocket) -> None:
        while (frames := await iopub.receive()) is not None:
            parts = wire.unsigned(frames)
            if parts is not None:
                self.note(parts)

    def note(self, parts: List[bytes]) -> None:
        """Look at an iopub message, of the agent's own subscription or of a channel's; see :class:`.Busy`."""
        if self._busy.note(parts):
            self.last_activity = now()
            self._alive = True  # whoever sees its output may interrupt it, also before its first reply on control

    # --- what is done to it ----------------------------------------------------------------------------

    def interrupt(self, *, force: bool = False) -> None:
        """Interrupt what it runs; ``force`` reaches its whole process group, so also what it waits for."""
        if self.launcher.interrupt_mode == "message" and not force:
            self._control.send(wire.signed(self.connection.key, wire.message("interrupt_request", {})))
        elif self._alive or force:  # one that still starts runs nothing, and would die of the signal
            self.child.signal(signal.SIGINT, group=force)

    async def restart(self) -> None:
        """End the process and start another; channels stay open, and are live again when this returns."""
        async with self._restarting:
            if self.died.done():
                raise error("CONTEXT_NOT_FOUND", "The kernel has ended.")
            self._tell({"execution_state": "restarting"})
            await self._end_process()
            old = self._launch
            try:
                launch = old.launcher.launch(self._spawner, old.cwd, old.env)
            except Exception:  # whatever it was: without a process the kernel is dead, and its channels must hear so
                self._die(Death("it could not be started again"))
                raise
            self._begin(launch)
            await asyncio.gather(*(channel.attach() for channel in list(self.channels)))

    async def shutdown(self) -> None:
        """End it for good, on request."""
        async with self._restarting:
            if not self.died.done():
                await self._end_process()
                self._die(Death("it was shut down on request", wanted=True))

    async def _end_process(self) -> None:
        """Let the process end by itself if it can, then end all that is left of it and below it."""
        self._stopping = True
        child = self.child
        if self._alive:
            self._control.send(wire.signed(self.connection.key, wire.message("shutdown_request", {"restart": False})))
            await asyncio.wait({child.exited}, timeout=_SHUTDOWN_SECONDS)
        child.kill()
        await child.gone
        self._finish_process()
        self._stopping = False

    async def _watch_process(self, child: Child) -> None:
        ended = await child.exited
        if not self._stopping and child is self.child:
            self._die(self._cause(ended))
            child.kill()
            await child.gone
            self._finish_process()

    def _die(self, death: Death) -> None:
        if self.died.done():
            return
        self.died.set_result(death)
        for channel in list(self.channels):
            channel.end(death)

    def _finish_process(self) -> None:
        self._control.close()
        self._iopub.close()

    def _tell(self, status: Mapping[str, Any]) -> None:
        for channel in list(self.channels):
            channel.tell("status", status)

    def _cause(self, ended: Exit) -> Death:
        if ended.signal is None:
            last = ended.tail.strip().rpartition("\n")[2][:300] if ended.code else ""
            return Death(f"it ended with exit code {ended.code}" + (f" ({last})" if last else ""), ended.code)
        name = _signal_name(ended.signal)
        if ended.signal == signal.SIGKILL and oom_kills() > self._oom_kills:
            return Death("it ran out of memory", None, ended.signal)
        return Death(f"it was killed by {name}", None, ended.signal)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
