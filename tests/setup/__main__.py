"""Everything that `make test` does: set up what the tests need, run every check, and leave no daemon behind.

    python tests/setup [arguments for pytest]

The exit code is that of the first check that failed; 0 means that all of them ran and passed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import daemon
import debian

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".test-state"
BIN = Path(sys.executable).parent

CHECKS = (
    ("ruff", [BIN / "ruff", "check", "--quiet"]),
    ("format", [BIN / "ruff", "format", "--check", "--quiet"]),
    ("mypy", [BIN / "mypy", "--no-error-summary"]),
    ("pytest", [BIN / "python", "-m", "pytest", "-ra"]),
)


def main(arguments: list[str]) -> int:
    """Set up, check, report; return the exit code."""
    STATE.mkdir(exist_ok=True)
    debian.install_missing()
    with daemon.running(STATE / "dockerd.log") as docker:
        if docker:
            build_image()
        codes = {name: check(name, [*command, *(arguments if name == "pytest" else [])]) for name, command in CHECKS}
    failed = [name for name, code in codes.items() if code]
    say("everything passed" if not failed else f"failed: {', '.join(failed)}")
    return next((code for code in codes.values() if code), 0)


def build_image() -> None:
    """Have the test image built; without it the tests marked ``docker`` are skipped, and say so."""
    say("the test image")
    if subprocess.run([sys.executable, ROOT / "tests/image/make.py"], cwd=ROOT, stdin=subprocess.DEVNULL).returncode:
        say("the test image could not be built: tests that need it will be skipped")


def check(name: str, command: list[object]) -> int:
    """Run one check with its output shown; return its exit code."""
    say(name)
    started = time.monotonic()
    code = subprocess.run([str(part) for part in command], cwd=ROOT, stdin=subprocess.DEVNULL).returncode
    say(f"{name} {'passed' if code == 0 else f'failed with exit code {code}'} in {time.monotonic() - started:.0f} s")
    return code


def say(text: str) -> None:
    """Print one line of progress, at once and in order with what the checks print."""
    print(f"── {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
