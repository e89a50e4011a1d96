"""What we are compared with: a local ipykernel over ZMQ, and a plain container through the Docker SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import docker
from jupyter_client.manager import AsyncKernelManager


class LocalKernel:
    """An ipykernel of this machine, spoken to as directly as jupyter_client can."""

    def __init__(self) -> None:
        self._manager = AsyncKernelManager(kernel_name="python3")
        self._client: Any = None

    async def start(self) -> None:
        """Start the process and connect to it, without waiting: what is sent meanwhile is queued by ZMQ."""
        await self._manager.start_kernel(extra_arguments=["--IPKernelApp.log_level=ERROR"])
        self._client = self._manager.client()
        self._client.start_channels(hb=False)

    async def first(self, code: str) -> None:
        """Execute the first code; ends at its reply, as a subscription to iopub may not be there yet."""
        await self._reply(self._client.execute(code))

    async def run(self, code: str) -> None:
        """Execute ``code``; ends when its reply and the kernel's "idle" for it have both come."""
        request = self._client.execute(code)
        await asyncio.gather(self._reply(request), self._idle(request))

    async def _reply(self, request: str) -> None:
        while (await self._client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != request:
            pass

    async def _idle(self, request: str) -> None:
        while True:
            message = await self._client.get_iopub_msg(timeout=60)
            ours = message["parent_header"].get("msg_id") == request
            if ours and message["content"].get("execution_state") == "idle":
                return

    async def end(self) -> None:
        """Shut the kernel down at once."""
        self._client.stop_channels()
        await self._manager.shutdown_kernel(now=True)


@asynccontextmanager
async def local_kernel() -> AsyncIterator[LocalKernel]:
    """A local kernel that has answered once."""
    kernel = LocalKernel()
    await kernel.start()
    try:
        await kernel.first("1+1")
        yield kernel
    finally:
        await kernel.end()


class Containers:
    """Containers of one image through the Docker SDK, doing nothing but sleep."""

    def __init__(self, image: str) -> None:
        self._docker = docker.from_env()
        self._image = image

    def start(self) -> Any:
        """``docker create`` and ``docker start``, without network as our sandboxes are."""
        command = ["sleep", "infinity"]
        container = self._docker.containers.create(self._image, entrypoint=command, network_mode="none", init=True)
        container.start()
        return container

    @contextmanager
    def one(self) -> Iterator[Any]:
        """A running container."""
        container = self.start()
        try:
            yield container
        finally:
            container.remove(force=True)

    def close(self) -> None:
        """Let go of the daemon."""
        self._docker.close()
