"""``/api/kernels`` and ``/api/kernelspecs``: as a Jupyter server has them, with contexts."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from ..errors import error
from .kernels import DEFAULT, Request
from .launch import PYTHON
from .web import Handler


class KernelsHandler(Handler):
    """``/api/kernels``."""

    def get(self) -> None:
        """List the living kernels."""
        self.answer([kernel.model() for kernel in self.agent.kernels.all()])

    async def post(self) -> None:
        """The kernel of a context: the living one, else a new one."""
        body = self.body()
        request = Request(
            name=_text(body, "name"),
            language=_text(body, "language"),
            context=_text(body, "context") or DEFAULT,
            cwd=_text(body, "cwd"),
            env=environment_of(body),
        )
        kernel, created, notice = await self.agent.kernels.get_or_create(request)
        self.answer({**kernel.model(), "created": created, "notice": notice}, 201 if created else 200)


class KernelHandler(Handler):
    """``/api/kernels/ID``."""

    def get(self, kernel_id: str) -> None:
        """Describe it."""
        self.answer(self.agent.kernels.get(kernel_id).model())

    async def delete(self, kernel_id: str) -> None:
        """End it."""
        await self.agent.kernels.get(kernel_id).shutdown()
        self.answer()


class KernelActionHandler(Handler):
    """``/api/kernels/ID/interrupt`` and ``/api/kernels/ID/restart``."""

    async def post(self, kernel_id: str, action: str) -> None:
        """Do it."""
        kernel = self.agent.kernels.get(kernel_id)
        if action == "interrupt":
            kernel.interrupt(force=bool(self.body().get("force")))
            self.answer()
        else:
            await kernel.restart()
            self.answer(kernel.model())


class KernelSpecsHandler(Handler):
    """``/api/kernelspecs`` and ``/api/kernelspecs/NAME``."""

    def get(self, name: Optional[str] = None) -> None:
        """List them, or describe one."""
        specs = self.agent.kernels.specs
        self.answer(specs.model(name) if name else {"default": PYTHON, "kernelspecs": specs.models()})


def environment_of(body: Mapping[str, Any]) -> Mapping[str, str]:
    """The ``env`` of a request, checked; raises ``INVALID_REQUEST``."""
    env = body.get("env") or {}
    if not isinstance(env, dict):
        raise error("INVALID_REQUEST", "'env' is not an object of texts.")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or not isinstance(value, str) or "\0" in value:
            raise error("INVALID_REQUEST", f"The environment variable {name!r} cannot be set to {value!r}.")
    return env


def _text(body: Mapping[str, Any], name: str) -> Optional[str]:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise error("INVALID_REQUEST", f"{name!r} is not a text: {value!r}.")
    return value
