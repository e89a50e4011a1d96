"""Builds the test image without a registry: a Debian base made here, then `jupyter sandbox build --base`.

    python tests/image/make.py [--force]

Does nothing if it is there already, made from the same Dockerfile. Needs mmdebstrap, and a Docker daemon.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from jupyter_sandbox import __version__
from jupyter_sandbox.engines.images.build import CONTEXT

IMAGE = f"jupyter-sandbox:{__version__}"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates", "git", "procps")
BASE_SECONDS = 600


class CannotBuild(Exception):
    """Why the image cannot be built here."""


def main(argv: list[str] | None = None) -> int:
    """Build what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="build it anew")
    arguments = parser.parse_args(argv)
    try:
        make(force=arguments.force)
    except CannotBuild as reason:
        print(f"The test image cannot be built: {reason}", file=sys.stderr)
        return 1
    return 0


def make(*, force: bool = False) -> None:
    """Build base and image, unless both are there as they should be."""
    marked = f"jsb-test:{_digest(PACKAGES, *(path.read_bytes() for path in _sources()))}"
    if not force and (found := _image_id(marked)) is not None and found == _image_id(IMAGE):
        print(f"{IMAGE} is there.")
        return
    base = f"jsb-test-base:{SUITE}-{_digest(SUITE, PACKAGES)}"
    if _image_id(base) is None:
        _make_base(base)
    command = [sys.executable, "-m", "jupyter_sandbox.cli", "build", "--base", base, "--tag", IMAGE]
    if subprocess.run([*command, *(["--no-cache"] if force else [])], stdin=subprocess.DEVNULL).returncode:
        raise CannotBuild("`jupyter sandbox build` failed.")
    _docker("tag", IMAGE, marked)


def _make_base(name: str) -> None:
    if shutil.which("mmdebstrap") is None:
        raise CannotBuild("there is no mmdebstrap; as root: apt-get install mmdebstrap")
    print(f"Making {name}, a Debian {SUITE} with {', '.join(PACKAGES)} ...", flush=True)
    started = time.monotonic()
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        "--format=tar",
        SUITE,
        "-",
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as bootstrap:
        imported = subprocess.run(
            ["docker", "import", "-", name], stdin=bootstrap.stdout, stdout=subprocess.DEVNULL, timeout=BASE_SECONDS
        )
    if bootstrap.returncode or imported.returncode:
        _docker("image", "rm", "--force", name)
        raise CannotBuild("mmdebstrap failed; it needs root or user namespaces, and a Debian mirror (see above).")
    print(f"Made {name} in {time.monotonic() - started:.0f} s.", flush=True)


def _sources() -> list[Path]:
    return [CONTEXT / "Dockerfile", CONTEXT / "requirements.txt"]


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr((__version__, *parts)).encode()).hexdigest()[:12]


def _image_id(name: str) -> str | None:
    done = _docker("image", "inspect", "--format", "{{.Id}}", name)
    return done.stdout.strip() if done.returncode == 0 else None


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CannotBuild(f"docker does not answer: {exc}") from exc
    if (
        "daemon" in done.stderr
        and "docker" in done.stderr.lower()
        and "No such image" not in done.stderr
        and done.returncode
    ):
        raise CannotBuild(done.stderr.strip())
    return done


if __name__ == "__main__":
    sys.exit(main())
