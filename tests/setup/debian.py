"""Debian packages that the tests use: what is missing is installed as root, and named otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess

PACKAGES = {
    "docker.io": "the Docker engine",
    "iptables": "Docker's networks",
    "mmdebstrap": "the base of the test image, without a registry",
    "chromium": "the browser test",
    "iproute2": "network namespaces that stand for the internet",
}


def install_missing() -> None:
    """Install what is missing. A failure is told and is no end: the tests that need it are skipped by name."""
    if not shutil.which("dpkg-query"):
        print("── not Debian: tests that need its packages are skipped unless their programs are there", flush=True)
        return
    if not (missing := [name for name in PACKAGES if not is_installed(name)]):
        return
    wanted = ", ".join(f"{name} ({PACKAGES[name]})" for name in missing)
    if os.geteuid() != 0:
        print(f"── not installed, and only root could: {wanted}", flush=True)
        return
    print(f"── installing {wanted}", flush=True)
    # The package lists may be there and fresh, or missing, or stale: they are fetched when they do not do.
    if not install(missing) and not (apt_get("update") and install(missing)):
        print("── apt-get failed: tests that need these packages will be skipped", flush=True)


def is_installed(package: str) -> bool:
    """Whether dpkg has the package, unpacked and configured."""
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return subprocess.run(command, capture_output=True, text=True).stdout == "installed"


def install(packages: list[str]) -> bool:
    """Install ``packages`` and nothing that they only recommend; whether that worked."""
    return apt_get("install", "--yes", "--no-install-recommends", *packages)


def apt_get(*arguments: str) -> bool:
    """Run apt-get without a terminal, showing only what goes wrong; whether it worked."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["apt-get", "--quiet=2", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-5:]), flush=True)
    return done.returncode == 0
