"""Sandboxes for Jupyter: a cell, a command or a script runs in an isolated place with its own state."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # As type checkers know it, without the cost of importing typing.

if TYPE_CHECKING:
    from typing import Any

    from .client.async_sandbox import AsyncSandbox as AsyncSandbox
    from .client.contexts import CodeContext as CodeContext
    from .client.handles import get_async_sandbox as get_async_sandbox
    from .client.handles import get_sandbox as get_sandbox
    from .client.handles import list_sandboxes as list_sandboxes
    from .client.sandbox import Sandbox as Sandbox
    from .client.temporary import temporary_sandbox as temporary_sandbox
    from .errors import CommandFailed as CommandFailed
    from .errors import Conflict as Conflict
    from .errors import Denied as Denied
    from .errors import ExecutionTimeout as ExecutionTimeout
    from .errors import Failed as Failed
    from .errors import InvalidInput as InvalidInput
    from .errors import KernelDied as KernelDied
    from .errors import NotFound as NotFound
    from .errors import SandboxError as SandboxError
    from .errors import SandboxWarning as SandboxWarning
    from .errors import Unavailable as Unavailable
    from .models import ContextInfo as ContextInfo
    from .models import ExecResult as ExecResult
    from .models import Execution as Execution
    from .models import ExecutionError as ExecutionError
    from .models import ExposedPort as ExposedPort
    from .models import FileInfo as FileInfo
    from .models import Logs as Logs
    from .models import Protection as Protection
    from .models import Result as Result
    from .models import SandboxStatus as SandboxStatus
    from .models import SandboxSummary as SandboxSummary
    from .models import Usage as Usage
    from .options import ContainerTimeouts as ContainerTimeouts
    from .options import Limits as Limits
    from .options import SandboxOptions as SandboxOptions

__version__ = "0.1.0"

# Where the public names live. They are imported when first used, so that `import jupyter_sandbox` costs nothing.
_NAMES = {
    "client.handles": "get_sandbox get_async_sandbox list_sandboxes",
    "client.temporary": "temporary_sandbox",
    "client.sandbox": "Sandbox",
    "client.async_sandbox": "AsyncSandbox",
    "client.contexts": "CodeContext",
    "options": "SandboxOptions ContainerTimeouts Limits",
    "errors": "SandboxError SandboxWarning InvalidInput NotFound Conflict Denied Unavailable Failed CommandFailed "
    "ExecutionTimeout KernelDied",
    "models": "SandboxStatus SandboxSummary ExecResult Execution ExecutionError Logs Result FileInfo ExposedPort "
    "ContextInfo Protection Usage",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*_MODULE_OF, "__version__", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    if (module := _MODULE_OF.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{module}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics; called by ``%load_ext jupyter_sandbox``."""
    importlib.import_module(".magics", __name__).load_ipython_extension(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Undo :func:`load_ipython_extension`; called by ``%unload_ext jupyter_sandbox``."""
    importlib.import_module(".magics", __name__).unload_ipython_extension(ipython)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Name the server extension; called by Jupyter servers, and only they import it."""
    app = importlib.import_module(".server.app", __name__).SandboxExtension
    return [{"module": __name__, "app": app}]
