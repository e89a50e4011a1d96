"""``GET /status`` and ``PUT /env``."""

from __future__ import annotations

import platform
from typing import Any, Dict, List

from . import API_VERSION, PACKAGE_VERSION
from .kernel_routes import environment_of
from .web import Agent, Handler


class StatusHandler(Handler):
    """What the agent is, and what it is doing. Needs no fork, so that it answers whatever user code does."""

    def get(self) -> None:
        """Answer it."""
        kernels = self.agent.kernels.all()
        contexts = [
            {"id": kernel.id, "name": kernel.context, "language": kernel.launcher.language, "state": kernel.state}
            for kernel in kernels
        ]
        self.answer({**identity(), "runtime": self.agent.runtime, "busy": _busy(self.agent), "contexts": contexts})


class EnvHandler(Handler):
    """The environment of processes that are started from now on."""

    def put(self) -> None:
        """Replace it."""
        self.agent.environment.extra = dict(environment_of(self.body()))
        self.answer()


def identity() -> Dict[str, Any]:
    """Versions of the agent, as the hand-off and the status name them."""
    return {"api": API_VERSION, "package": PACKAGE_VERSION, "python": platform.python_version()}


def _busy(agent: Agent) -> List[Dict[str, str]]:
    contexts = [
        {"kind": "context", "name": kernel.context, "since": kernel.busy_since}
        for kernel in agent.kernels.all()
        if kernel.busy_since is not None
    ]
    return [*contexts, *agent.running.values()]
