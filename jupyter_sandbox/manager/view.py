"""What is told of a sandbox: its status and its line in a list, neither of which wakes it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import Any

from ..errors import SandboxError, printable
from ..models import ContextInfo, SandboxStatus, SandboxSummary, Usage, to_json
from .actor import Actor
from .services import Services

log = logging.getLogger(__name__)

_CONTEXTS_SHOWN = 1000
_USAGE_TIMEOUT = 5.0
_ONE_LINE = str.maketrans("\n\t", "  ")


class View:
    """Describes sandboxes; remembers what was last known of those that sleep."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def summary(self, actor: Actor) -> dict[str, Any]:
        """One line of a list, from memory alone."""
        record = actor.record
        summary = SandboxSummary(
            id=record.id,
            state=actor.state,
            engine=record.engine,
            image=record.image,
            created_at=record.created_at,
            last_active_at=actor.activity.last_active_at,
            sleeps_at=actor.activity.sleeps_at(),
            keep_alive=self._services.options_of(record).keep_alive,
        )
        return {**to_json(summary), "owner": record.owner}

    def known(self, actor: Actor) -> dict[str, Any]:
        """All of its status that can be told without asking agent and engine: for answers that must be quick."""
        record, options = actor.record, self._services.options_of(actor.record)
        status = SandboxStatus(
            id=record.id,
            state=actor.state,
            engine=record.engine,
            isolation=record.runtime.isolation if record.runtime else (),
            created_at=record.created_at,
            last_active_at=actor.activity.last_active_at,
            sleeps_at=actor.activity.sleeps_at(),
            keep_alive=options.keep_alive,
            usage=actor.last_usage,
            limits=asdict(options.limits),
            contexts=actor.last_contexts,
            error=record.failure,
            network=record.network,
        )
        more = {
            "owner": record.owner,
            "lifetime": record.lifetime,
            "runtime": record.runtime_id,
            "previous_end": record.previous_end,
            "lost_contexts": list(record.lost_contexts),
        }
        return {**to_json(status), **more}

    async def measured(self, actor: Actor) -> dict[str, Any]:
        """Its status, with what it uses and its contexts as they are now, where they can be had."""
        actor.last_usage, actor.last_contexts = await asyncio.gather(self._usage(actor), self._contexts(actor))
        return self.known(actor)

    async def _usage(self, actor: Actor) -> Usage:
        runtime = actor.record.runtime
        if runtime is None:
            return Usage()
        try:
            async with asyncio.timeout(_USAGE_TIMEOUT):
                return await actor.lifetime.engine.usage(runtime)
        except (SandboxError, TimeoutError) as exc:
            log.info("%s: usage is not known: %s", actor.record.lifetime, exc)
            return actor.last_usage

    async def _contexts(self, actor: Actor) -> tuple[ContextInfo, ...]:
        if actor.state not in ("running", "sleeping"):
            return ()
        try:
            with actor.looking() as link:
                return _read_contexts((await link.status()).get("contexts"))
        except SandboxError:
            return actor.last_contexts


def _read_contexts(rows: object) -> tuple[ContextInfo, ...]:
    """What an agent says of its contexts, cut down to what a context may be."""
    contexts = []
    for row in rows[:_CONTEXTS_SHOWN] if isinstance(rows, list) else ():
        if isinstance(row, dict):
            fields = (_word(row.get(name)) for name in ("id", "name", "language", "state"))
            contexts.append(ContextInfo(*fields))
    return tuple(contexts)


def _word(said: object) -> str:
    """One short line of text, whatever an agent sent: it ends in tables and on terminals."""
    return printable(said[:200]).translate(_ONE_LINE) if isinstance(said, str) else ""
