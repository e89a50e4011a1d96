"""The manager with plain processes for sandboxes; kills itself when it reaches the step that its environment names."""

import os
import signal
import sys
from pathlib import Path

from jupyter_sandbox.manager.__main__ import ReadyLine
from jupyter_sandbox.manager.app import main
from jupyter_sandbox.manager.place import Place

sys.path.insert(0, str(Path(__file__).parent))
from stand_in_engines import EngineOfPlainProcesses


def reached(step: str) -> None:
    if step == os.environ.get("JSBTEST_DIE_AT"):
        os.kill(os.getpid(), signal.SIGKILL)


sys.exit(main(Place(), ReadyLine(int(sys.argv[1])), lambda *_: {"bubblewrap": EngineOfPlainProcesses}, reached=reached))
