"""The contexts of the sandbox: which kernel belongs to which name, and what became of the former one."""

from __future__ import annotations

import asyncio
from typing import Dict, List, Mapping, NamedTuple, Optional

from ..errors import SandboxError, error
from .environment import Environment
from .kernel import Kernel
from .kernelspecs import KernelSpecs
from .launch import Launch
from .spawning import Spawner

DEFAULT = "default"


class Request(NamedTuple):
    """What ``POST /api/kernels`` asks for."""

    name: Optional[str]
    language: Optional[str]
    context: str
    cwd: Optional[str]
    env: Mapping[str, str]


class Created(NamedTuple):
    """A context's kernel, whether it is new, and why its former kernel is gone (said once)."""

    kernel: Kernel
    created: bool
    notice: Optional[str]


class Kernels:
    """All kernels, by id and by context."""

    def __init__(self, environment: Environment, spawner: Spawner, first: Optional[Launch] = None) -> None:
        self.specs = KernelSpecs(environment)
        self._environment = environment
        self._spawner = spawner
        self._by_id: Dict[str, Kernel] = {}
        self._by_context: Dict[str, Kernel] = {}
        self._notices: Dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._preloaded = self._add(DEFAULT, first) if first is not None else None

    def all(self) -> List[Kernel]:
        """Every living kernel, oldest first."""
        return list(self._by_id.values())

    def get(self, kernel_id: str) -> Kernel:
        """A living kernel; raises ``CONTEXT_NOT_FOUND``."""
        kernel = self._by_id.get(kernel_id)
        if kernel is None:
            raise error("CONTEXT_NOT_FOUND", f"There is no kernel {kernel_id!r} in the sandbox (any more).")
        return kernel

    async def get_or_create(self, request: Request) -> Created:
        """The living kernel of the context, else a new one.

        Raises
        ------
        SandboxError
            ``LANGUAGE_NOT_FOUND``, ``OPTION_CONFLICT`` if the context has another language, ``FILE_NOT_FOUND`` for
            the working directory, ``LIMIT_REACHED`` if no process can be started.
        """
        async with self._lock:
            preloaded, self._preloaded = self._preloaded, None
            kernel = self._by_context.get(request.context)
            if kernel is not None and kernel is preloaded and not _fits(kernel, request):
                await kernel.shutdown()  # made on a guess, and nobody has used it
                kernel = None
            elif kernel is not preloaded and preloaded is not None:
                self._preloaded = preloaded
            if kernel is not None:
                _check_same_kind(kernel, request)
                return Created(kernel, kernel is preloaded, None)
            return await self._create(request)

    async def shutdown_all(self) -> None:
        """End every kernel, all at once."""
        await asyncio.gather(*(kernel.shutdown() for kernel in self.all()))

    async def _create(self, request: Request) -> Created:
        launcher = self.specs.find(request.name, request.language)
        cwd = self._environment.cwd(request.cwd)
        kernel = self._add(request.context, launcher.launch(self._spawner, cwd, self._environment.build(request.env)))
        try:
            await kernel.child.started
        except SandboxError:
            await kernel.shutdown()
            self._notices.pop(request.context, None)  # this error says it
            raise
        return Created(kernel, True, self._notices.pop(request.context, None))

    def _add(self, context: str, launch: Launch) -> Kernel:
        kernel = Kernel(context, launch, self._spawner)
        self._by_id[kernel.id] = self._by_context[context] = kernel
        kernel.died.add_done_callback(lambda _: self._forget(kernel))
        return kernel

    def _forget(self, kernel: Kernel) -> None:
        death = kernel.died.result()
        self._by_id.pop(kernel.id, None)
        if self._by_context.get(kernel.context) is kernel:
            del self._by_context[kernel.context]
        if not death.wanted:
            text = f"The former kernel of the context {kernel.context!r} is gone, with its variables: {death.reason}."
            self._notices[kernel.context] = text


def _fits(kernel: Kernel, request: Request) -> bool:
    plain = request.cwd is None and not request.env
    return plain and request.name in (None, kernel.launcher.name) and _same_language(kernel, request)


def _same_language(kernel: Kernel, request: Request) -> bool:
    return request.language is None or request.language.lower() == kernel.launcher.language.lower()


def _check_same_kind(kernel: Kernel, request: Request) -> None:
    if _same_language(kernel, request) and request.name in (None, kernel.launcher.name):
        return
    text = (
        f"The context {kernel.context!r} exists with the language {kernel.launcher.language!r}, "
        f"not {request.language or request.name!r}."
    )
    raise error("OPTION_CONFLICT", text, remedy="Use another context name, or end that context first.")
