"""`jupyter sandbox trust`: from now on the name of an image stands for the image that it names at present."""

from __future__ import annotations

import argparse
from typing import Any

from .. import paths
from ..client.connection import Connection
from ..client.loop import run as run_in_background
from . import records_seen


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "trust",
        help="use the image that a name stands for at present",
        description="A name of an image stands for the image that it named when a sandbox first used it. "
        "This renews that, after the image was built or pulled anew. Sandboxes that exist keep their image.",
    )
    parser.add_argument("image", metavar="IMAGE", nargs="?", help="its name (default: the default image)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Renew, and say what the name stands for."""
    answer = renew(arguments.image)
    print(f"New sandboxes with {answer['image']} use the image {str(answer['id']).removeprefix('sha256:')[:12]}.")
    return 0


def renew(image: str | None) -> dict[str, Any]:
    """Have the manager renew what ``image`` stands for; returns its name and its id."""
    return run_in_background(_renew(image))


def renew_if_used(image: str) -> None:
    """Renew it if a sandbox has used that name before: whoever builds an image anew means the new one."""
    try:
        known = records_seen.read(paths.data_dir() / "records.sqlite")
    except records_seen.Unreadable:  # The manager says so better, when it is asked for a sandbox.
        return
    if known is not None and image in known.images:
        renew(image)


async def _renew(image: str | None) -> dict[str, Any]:
    connection = Connection.acquire()
    try:
        return await connection.json("POST", "/images/trust", json={"image": image})
    finally:
        await connection.release()
