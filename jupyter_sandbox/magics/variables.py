"""``-i`` and ``-o``: copies variables into the sandbox before a cell and back after it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..client.loop import run
from ..errors import SandboxError, error
from . import packing
from .safe import clean_text

if TYPE_CHECKING:
    from ..client.async_sandbox import AsyncSandbox
    from ..client.channel import KernelChannel

_DIRECTORY = "/tmp/.jupyter-sandbox-"  # noqa: S108 - a path inside the sandbox

# Run in the sandbox's kernel as a silent request. It leaves no name behind: all happens in a namespace of its own.
_SETUP = """
import os, types
packing = types.ModuleType("packing")
exec(compile(source, "<jupyter_sandbox packing>", "exec"), packing.__dict__)
"""
_TAKE = """
with open(path, "rb") as file:
    shell.push(packing.unpack(file.read()))
"""
_GIVE = """
missing = [name for name in names if name not in shell.user_ns]
if missing:
    raise packing.Refused(f"{missing[0]}: there is no such variable in the sandbox")
os.makedirs(os.path.dirname(path), mode=0o700)
with open(path, "wb") as file:
    file.write(packing.pack({name: shell.user_ns[name] for name in names}))
"""


def pack(names: Sequence[str], namespace: Mapping[str, Any]) -> bytes | None:
    """The variables ``names`` of the notebook as bytes; None if there are none to send.

    Raises
    ------
    InvalidInput
        ``INVALID_VARIABLE``: undefined, of a type that does not pass, or too large; nothing has been started.
    """
    for name in names:
        if name not in namespace:
            raise error("INVALID_VARIABLE", f"-i {name}: there is no such variable in this notebook.", remedy="")
    try:
        return packing.pack({name: namespace[name] for name in names}) if names else None
    except packing.Refused as problem:
        raise _invalid("-i", str(problem)) from None


def push(handle: AsyncSandbox, channel: KernelChannel, packed: bytes) -> None:
    """Set the packed variables in the channel's kernel; blocks, and ■ stops it."""
    run(_push(handle, channel, packed))


def pull(handle: AsyncSandbox, channel: KernelChannel, names: Sequence[str]) -> dict[str, Any]:
    """The variables ``names`` of the channel's kernel; blocks, and ■ stops it.

    Raises
    ------
    InvalidInput
        ``INVALID_VARIABLE``.
    """
    data = run(_pull(handle, channel, names))
    try:
        found: dict[str, Any] = packing.unpack(data)
    except packing.Refused as problem:
        raise _invalid("-o", str(problem)) from None
    if set(found) != set(names):
        raise _invalid("-o", "the sandbox sent other variables than asked for")
    return found


async def _push(handle: AsyncSandbox, channel: KernelChannel, packed: bytes) -> None:
    path = f"{_DIRECTORY}{secrets.token_hex(8)}/in"
    await handle.write_file(path, packed)
    try:
        await _execute(channel, _TAKE, "-i", path=path)
    finally:
        await handle.delete_file(path.rpartition("/")[0], recursive=True)


async def _pull(handle: AsyncSandbox, channel: KernelChannel, names: Sequence[str]) -> bytes:
    path = f"{_DIRECTORY}{secrets.token_hex(8)}/out"
    try:
        await _execute(channel, _GIVE, "-o", path=path, names=list(names))
        # Asked for before it is read, because what writes it there is not trusted with the notebook's memory.
        sizes = [entry.size for entry in await handle.list_files(path.rpartition("/")[0]) if entry.path == path]
        if not sizes or sizes[0] > packing.LIMIT + 1024:
            raise _invalid("-o", "the sandbox did not write the variables as it was told")
        return await handle.read_file(path, encoding=None)
    finally:
        await _remove(handle, path.rpartition("/")[0])


async def _remove(handle: AsyncSandbox, directory: str) -> None:
    try:
        await handle.delete_file(directory, recursive=True)
    except SandboxError as problem:
        if problem.code != "FILE_NOT_FOUND":
            raise


async def _execute(channel: KernelChannel, program: str, option: str, **names: Any) -> None:
    """Run ``program`` silently; an error of it becomes ``INVALID_VARIABLE``."""
    source = (files(__package__) / "packing.py").read_text()
    given = {"source": source, **names}
    code = f"exec({_SETUP + program!r}, {{**{given!r}, 'shell': get_ipython()}})"
    request = channel.execute(code, silent=True, store_history=False)
    async for _ in request:
        pass
    reply = request.reply or {}
    if reply.get("status") != "ok":
        name, text = str(reply.get("ename")), clean_text(str(reply.get("evalue")))[:1000]
        raise _invalid(option, text if name == "Refused" else f"{name[:100]}: {text}")


def _invalid(option: str, problem: str) -> SandboxError:
    return error("INVALID_VARIABLE", f"{option} {problem.rstrip('.')}.")
