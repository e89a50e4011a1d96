"""A personal manager belongs to one person: where a server's login tells people apart, only the first may use it."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path

from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider, User

from .. import paths
from ..errors import error

_NAMELESS = frozenset(
    [f"{cls.__module__}.{cls.__qualname__}" for cls in (IdentityProvider, PasswordIdentityProvider)]
    + ["jupyterhub.singleuser.extension.JupyterHubIdentityProvider"]
)
"""Logins behind which there is one person: whoever knows the token or the password, or the owner at the Hub."""


def names_people(provider: IdentityProvider) -> bool:
    """Whether different people may log in through ``provider``; a subclass of a stock one may well do that."""
    return f"{type(provider).__module__}.{type(provider).__qualname__}" not in _NAMELESS


class FirstPerson:
    """Remembers, beside the records, which person uses this user's manager, and refuses all others.

    It outlives the server: whoever comes first after a restart would otherwise find another person's sandboxes.
    """

    def __init__(self, provider: IdentityProvider) -> None:
        self._needed = names_people(provider)

    @property
    def matters(self) -> bool:
        """Whether people are told apart here."""
        return self._needed

    def check(self, user: User) -> None:
        """Let the first person pass, and remember them.

        Raises
        ------
        Denied
            ``SHARED_SERVER`` for everybody else.
        """
        if self._needed and _first(user.username) != user.username:
            raise error(
                "SHARED_SERVER",
                "The sandboxes of this Jupyter server belong to another person, who used them first.",
                remedy="Ask for a deployment as a service (see the docs).",
            )


def _first(username: str) -> object:
    """The username on record, which is ``username`` if there was none."""
    path = paths.data_dir() / "person.json"
    if not path.exists():
        _record(path, username)
    try:
        return json.loads(path.read_text())["username"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # Unreadable is nobody: refusing is the safe mistake, and the file can be removed.


def _record(path: Path, username: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    draft.touch(mode=0o600)
    try:
        draft.write_text(json.dumps({"username": username}))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # Whole or not at all, and never over what another server has recorded.
    finally:
        draft.unlink()
