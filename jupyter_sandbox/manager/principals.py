"""Who asks: every call to a manager carries a principal, and everything is decided for it."""

from __future__ import annotations

import grp
import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who asks for what is whose.

    Parameters
    ----------
    owner:
        To whom the sandbox belongs that is asked for (``os:ada``).
    actor:
        Who asks; not the owner where somebody may act for another.
    groups:
        The groups of the actor.
    """

    owner: str
    actor: str
    groups: tuple[str, ...] = ()


Principals = Callable[[str], "Principal | None"]
"""The principal of a call, given the owner in its path; None where that owner's sandboxes are none of its business."""


def one_person(owner: str) -> Principals:
    """The principals of a personal manager: its socket lets nobody in but the user who runs it."""
    me = Principal(owner=owner, actor=owner, groups=own_groups())
    return lambda asked_for: me if asked_for in ("-", owner) else None


def own_groups() -> tuple[str, ...]:
    """The names of the groups that this process has, sorted; a group without a name is its number."""
    return tuple(sorted({_group_name(gid) for gid in {os.getegid(), *os.getgroups()}}))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
