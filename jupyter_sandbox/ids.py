"""Sandbox IDs: what may be written, how it is normalized, and when it fits a DNS label (design section 5)."""

from __future__ import annotations

import re
import secrets
import warnings

from .errors import SandboxWarning, error

MAX_LENGTH = 63
"""Characters in an ID: the length of one DNS label (RFC 1035, section 2.3.4)."""

RESERVED = frozenset({"www", "api", "admin", "root", "system"})
"""Names that would be mistaken for something else in a preview's host name; refused in any case."""

_ALLOWED = re.compile(r"[A-Za-z0-9-]", re.ASCII)
_LITERAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)


def normalize(sandbox_id: str, *, normalize_id: bool = True) -> str:
    """Check ``sandbox_id`` and return the form under which the sandbox is known.

    Parameters
    ----------
    sandbox_id:
        What the user wrote, for example ``"MyProject"``.
    normalize_id:
        True (the default) lowercases. False keeps case; an ID with uppercase is then a different sandbox,
        has no preview host, and a :class:`SandboxWarning` says so.

    Raises
    ------
    InvalidInput
        ``INVALID_ID_*``. Characters are checked before lowercasing, ASCII only, so that nothing outside
        ASCII folds into a letter (``"K"``, the Kelvin sign, lowercases to ``"k"``).
    """
    if not isinstance(sandbox_id, str):
        raise error("INVALID_ID_CHARACTER", f"A sandbox ID is a str, not {type(sandbox_id).__name__}.")
    check(sandbox_id)
    lowered = sandbox_id.lower()
    if normalize_id or lowered == sandbox_id:
        return lowered
    warnings.warn(
        f"The sandbox ID {sandbox_id!r} keeps its uppercase letters: it is not the sandbox {lowered!r}, "
        "and it has no preview host, because host names have no case (RFC 4343).",
        SandboxWarning,
        stacklevel=3,
    )
    return sandbox_id


def check(sandbox_id: str) -> None:
    """Raise ``INVALID_ID_*`` unless ``sandbox_id`` may stand as it is (routes take IDs literally)."""
    if not sandbox_id:
        raise error("INVALID_ID_EMPTY")
    shown = sandbox_id if len(sandbox_id) <= 80 else sandbox_id[:77] + "..."
    bad = next((c for c in sandbox_id if not _ALLOWED.match(c)), None)
    if bad is not None:
        raise error(
            "INVALID_ID_CHARACTER", f"The sandbox ID {shown!r} has the character {bad!r}, which is not allowed."
        )
    if len(sandbox_id) > MAX_LENGTH:
        raise error("INVALID_ID_TOO_LONG", f"The sandbox ID {shown!r} has {len(sandbox_id)} characters, more than 63.")
    if not _LITERAL.fullmatch(sandbox_id):
        raise error("INVALID_ID_HYPHEN", f"The sandbox ID {shown!r} begins or ends with '-'.")
    if sandbox_id.lower() in RESERVED:
        raise error("INVALID_ID_RESERVED", f"The sandbox ID {shown!r} is reserved.")


def fits_dns_label(sandbox_id: str) -> bool:
    """Whether ``sandbox_id`` can be part of a host name as it is: lowercase only."""
    return sandbox_id == sandbox_id.lower()


def temporary() -> str:
    """A new ID that nobody else has, for :func:`jupyter_sandbox.temporary_sandbox`."""
    return f"tmp-{secrets.token_hex(8)}"


def opaque() -> str:
    """A new opaque id (32 hexadecimal digits) for a lifetime, a runtime or an installation."""
    return secrets.token_hex(16)
