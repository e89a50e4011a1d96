"""The IPython extension: ``%load_ext jupyter_sandbox`` brings ``%sandbox`` and ``%%sandbox``."""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

_NAME = "SandboxMagics"


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register the magics, their configuration and tab completion. Called by ``%load_ext``."""
    from . import completion
    from .magics import SandboxMagics

    if _NAME not in ipython.magics_manager.registry:
        magics = SandboxMagics(ipython)
        ipython.register_magics(magics)
        completion.register(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Take the magics away and let go of what they hold; the sandboxes go on. Called by ``%unload_ext``."""
    from . import completion

    magics = ipython.magics_manager.registry.pop(_NAME, None)
    if magics is not None:
        magics.close()
        completion.unregister(ipython)
        for kind in ("line", "cell"):
            ipython.magics_manager.magics[kind].pop("sandbox", None)
