"""Which sandbox: owner and ID to the one actor that answers for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from ..errors import SandboxError, error
from ..ids import opaque
from .actor import Actor
from .lifetime import Lifetime
from .policy import Ceilings, allowed_engine, refuse_excess, refuse_interpreter
from .principals import Principal
from .records import SandboxRecord
from .services import Services
from .slots import Key, Slots
from .wanted import Wanted, refuse_conflicts

log = logging.getLogger(__name__)

_ADOPTIONS_AT_ONCE = 8


class Registry:
    """All sandboxes of this manager, by owner and ID."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._actors: dict[Key, Actor] = {}
        self._creating: dict[Key, asyncio.Task[Actor]] = {}
        self._slots = Slots()

    async def load(self) -> None:
        """Make an actor for each record; they find out in the background what is left of them."""
        turn = asyncio.Semaphore(_ADOPTIONS_AT_ONCE)
        for record in await self._services.records.all():
            self._add(record).adopt(turn)

    def all(self) -> Iterable[Actor]:
        """Every actor, in the order of creation."""
        return sorted(self._actors.values(), key=lambda actor: actor.record.created_at)

    def lifetimes(self) -> set[str]:
        """The lifetimes that belong to a record."""
        return {actor.record.lifetime for actor in self._actors.values()}

    @property
    def in_memory(self) -> bool:
        """Whether any sandbox uses memory, or is about to."""
        return bool(self._creating) or any(actor.in_memory for actor in self._actors.values())

    async def get(self, owner: str, sandbox_id: str) -> Actor:
        """The actor of an existing sandbox, once it is known what is left of it.

        Raises
        ------
        NotFound
            ``SANDBOX_NOT_FOUND``; also where it belongs to somebody else.
        """
        actor = self._actors.get((owner, sandbox_id))
        if actor is not None:
            await actor.adopted()
        if actor is None or actor.state == "absent":
            raise error("SANDBOX_NOT_FOUND", f"There is no sandbox {sandbox_id!r}.", id=sandbox_id)
        return actor

    async def get_or_create(self, principal: Principal, sandbox_id: str, wanted: Wanted) -> Actor:
        """The actor of that ID with the options of ``wanted``; made if there is none. Does not start it.

        Raises
        ------
        SandboxError
            ``POLICY_DENIED``, ``LIMIT_REACHED``, ``OPTION_CONFLICT``, ``NOT_AVAILABLE_YET``, ``NO_ENGINE``,
            ``ENGINE_UNAVAILABLE`` or ``IMAGE_MISSING``.
        """
        key, ceilings = (principal.owner, sandbox_id), self._services.policy(principal)
        for given in (wanted.options, wanted.environment):
            refuse_excess(given, ceilings)
        while (actor := self._actors.get(key)) is not None:
            await actor.adopted()
            if actor.state not in ("absent", "destroying") and not _is_to_be_replaced(actor, wanted):
                await actor.configure(wanted.options, wanted.environment)
                return actor
            await actor.destroy()
        if key not in self._creating:
            self._slots.reserve(key, ceilings.sandboxes)
            self._creating[key] = asyncio.create_task(self._create(principal, sandbox_id, wanted, ceilings))
            self._creating[key].add_done_callback(lambda _: self._creating.pop(key))
        return await asyncio.shield(self._creating[key])

    async def destroy(self, owner: str, sandbox_id: str) -> None:
        """Destroy that sandbox if there is one."""
        key = (owner, sandbox_id)
        if key in self._creating:
            await asyncio.wait({self._creating[key]})
        actor = self._actors.get(key)
        if actor is not None:
            await actor.destroy()

    async def stop_all(self, reason: str, grace: float) -> None:
        """End every runtime; files and records stay."""
        stops = (actor.stop(reason, grace) for actor in list(self._actors.values()))
        for result in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(result, BaseException):
                log.warning("A sandbox could not be stopped: %s", result)

    async def leave_all(self) -> None:
        """Let go of every runtime without touching it."""
        for actor in self._actors.values():
            await actor.leave()

    async def _create(self, principal: Principal, sandbox_id: str, wanted: Wanted, ceilings: Ceilings) -> Actor:
        try:
            record = await self._new_record(principal, sandbox_id, wanted, ceilings)
        except BaseException:
            self._slots.release((principal.owner, sandbox_id))
            raise
        actor = self._add(record)
        try:
            await actor.lifetime.create()
        except BaseException:
            self._forget(actor)
            raise
        return actor

    async def _new_record(
        self, principal: Principal, sandbox_id: str, wanted: Wanted, ceilings: Ceilings
    ) -> SandboxRecord:
        record = SandboxRecord(
            lifetime=opaque(),
            owner=principal.owner,
            id=sandbox_id,
            engine="",
            image=None,
            network="none",
            interpreter=wanted.interpreter,
            options=wanted.options,
            actor=principal.actor,
            groups=principal.groups,
        )
        options = self._services.options_of(record, wanted.environment)
        record.network = options.network or "none"
        engine = await self._services.engines.decide(options.engine)
        record.engine = allowed_engine(engine, ceilings)
        await self._choose_image(record, ceilings)
        return record

    async def _choose_image(self, record: SandboxRecord, ceilings: Ceilings) -> None:
        """Give a new sandbox its image; one without sees the client's Python, which must be allowed then."""
        services, engine = self._services, self._services.engines.get(record.engine)
        record.image = services.images.choose(engine, record.options.image, services.defaults.image, ceilings)
        if record.image is None:
            refuse_interpreter(record.interpreter, ceilings)
        else:
            record.image_id = await services.images.pin(engine, record.image)

    def _add(self, record: SandboxRecord) -> Actor:
        actor = Actor(Lifetime(record, self._services), self._services, self._forget, self._make_room)
        self._actors[(record.owner, record.id)] = actor
        self._slots.hold((record.owner, record.id))
        return actor

    async def _make_room(self) -> None:
        await self._services.memory.relieve(self.all)

    def _forget(self, actor: Actor) -> None:
        key = (actor.record.owner, actor.record.id)
        if self._actors.get(key) is actor:
            del self._actors[key]
            self._slots.release(key)


def _is_to_be_replaced(actor: Actor, wanted: Wanted) -> bool:
    """Whether it never ran, and never will with its engine and image: then another choice is no conflict."""
    if actor.state != "failed" or actor.record.starts > 0:
        return False
    try:
        refuse_conflicts(wanted.options, actor.record)
    except SandboxError:
        return True
    return False
