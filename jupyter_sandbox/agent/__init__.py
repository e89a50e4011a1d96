"""The agent: the main process of every sandbox, and the only place that knows how to run things in it.

It is shipped as one zipapp (``engines/agent_zip.py``), runs on Python 3.9 and newer, needs tornado, pyzmq and an
ipykernel to start, and imports nothing of this package but ``errors``.
"""

from __future__ import annotations

import sys

API_VERSION = "1.0"
"""``MAJOR.MINOR`` of the HTTP API (docs/protocol.md)."""

PACKAGE_VERSION: str = getattr(sys.modules[__name__.partition(".")[0]], "__version__", "0")
"""Version of the package that this agent was built from; the zipapp carries it in its stub ``__init__``."""
