"""Builds the image of a sandbox with the docker CLI, because only that brings BuildKit's secrets and caches."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ... import __version__
from ...errors import SandboxError, error
from .progress import BuildEvent, Log

CONTEXT = Path(__file__).parent
"""The directory with the Dockerfile."""

_CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE")
_LAST_LINES = 15
_PROBE_SECONDS = 20


@dataclass(frozen=True)
class BuiltImage:
    """What a build made: the image's name, its ``size`` in bytes, and how many ``seconds`` it took."""

    name: str
    size: int
    seconds: float


def build(
    *,
    tag: str,
    base: str | None = None,
    no_cache: bool = False,
    report: Callable[[BuildEvent], None],
) -> BuiltImage:
    """Build the default image as ``tag``, on ``base`` if given.

    Parameters
    ----------
    tag:
        The name of the image.
    base:
        A Debian or Ubuntu image, with or without Python. Default: that of the Dockerfile.
    no_cache:
        Build every step anew.
    report:
        Called for every step that begins or ends and every line that one writes.

    Raises
    ------
    SandboxError
        ``BUILD_FAILED``, with the last lines of the build in ``details["lines"]``.
    """
    cli = find_cli(os.environ)
    started = time.monotonic()
    command = [cli, *_arguments(tag, base, no_cache=no_cache), str(CONTEXT)]
    last: deque[str] = deque(maxlen=_LAST_LINES)
    log = Log(report)
    process = subprocess.Popen(
        command,
        env=_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with process:
        try:
            for line in process.stdout or ():
                last.append(line.rstrip())
                log.read(line.rstrip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise _failed(tag, last)
    return BuiltImage(tag, _size(cli, tag), time.monotonic() - started)


def find_cli(environ: Mapping[str, str]) -> str:
    """The first docker CLI on the PATH that can use BuildKit; a CLI without its buildx part cannot.

    Raises
    ------
    SandboxError
        ``BUILD_FAILED`` if there is none.
    """
    found = list(_on_path("docker", environ))
    for cli in found:
        help_text = _output([cli, "build", "--help"], environ)
        if help_text is not None and "--secret" in help_text:
            return cli
    if not found:
        raise error("BUILD_FAILED", "There is no `docker` command here.", remedy="Install Docker first.")
    raise error(
        "BUILD_FAILED",
        f"The docker command ({', '.join(found)}) cannot use BuildKit.",
        remedy="Install its buildx component (Debian: docker-buildx, Docker's own packages: docker-buildx-plugin).",
    )


def _arguments(tag: str, base: str | None, *, no_cache: bool) -> Iterator[str]:
    yield from ("build", "--progress=plain", "--tag", tag, "--build-arg", f"VERSION={__version__}")
    if base is not None:
        yield from ("--build-arg", f"BASE={base}")
    if no_cache:
        yield "--no-cache"
    if (bundle := _ca_bundle(os.environ)) is not None:
        yield from ("--secret", f"id=ca,src={bundle}")


def _ca_bundle(environ: Mapping[str, str]) -> str | None:
    """The certificates that this machine trusts, if it was told of its own; pip in the build needs them too."""
    given = (environ.get(name) for name in _CA_VARIABLES)
    return next((path for path in given if path and Path(path).is_file()), None)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {**environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}


def _on_path(name: str, environ: Mapping[str, str]) -> Iterator[str]:
    seen = set()
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(directory or ".") / name
        if path.is_file() and os.access(path, os.X_OK) and (real := path.resolve()) not in seen:
            seen.add(real)
            yield str(path)


def _output(command: list[str], environ: Mapping[str, str]) -> str | None:
    """What a short command writes; None if it fails."""
    try:
        done = subprocess.run(
            command, env=_environment(environ), capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _size(cli: str, tag: str) -> int:
    text = _output([cli, "image", "inspect", "--format", "{{.Size}}", tag], os.environ)
    return int(text) if text and text.strip().isdigit() else 0


def _failed(tag: str, last: deque[str]) -> SandboxError:
    text = "\n".join(last).lower()
    remedy = "The lines above say why; `--no-cache` builds every step anew."
    if "cannot connect to the docker daemon" in text or "permission denied while trying to connect" in text:
        remedy = "Start the Docker daemon, or let this user use it, then try again."
    elif "certificate_verify_failed" in text:
        remedy = "Set PIP_CERT to the certificates that this network needs, then try again."
    elif "failed to resolve source metadata" in text or "failed to do request" in text:
        remedy = "The base image cannot be fetched; name one that is here: `jupyter sandbox build --base IMAGE`."
    return error("BUILD_FAILED", f"The image {tag} could not be built.", remedy=remedy, lines=list(last))
