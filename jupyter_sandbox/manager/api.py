"""The manager's routes (docs/protocol.md, "Manager"), as they are written; all decisions are made elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from .. import __version__, ids
from ..engines.base import Step
from ..errors import SandboxError, error
from ..options import SandboxOptions, parse_duration
from .actor import Actor
from .agent_proxy import NDJSON, forward, line
from .agent_routes import match
from .channel_proxy import open_channel
from .policy import refuse_extension
from .principals import Principal
from .registry import Registry
from .services import Services
from .view import View
from .wanted import Wanted

API = "1.0"
"""Version of the protocol; the same major works together."""

_BODY_LIMIT = 4 * 1024 * 1024
_SANDBOX = "/sandboxes/{owner}/{id}"


class Api:
    """The routes of one manager.

    Parameters
    ----------
    handover:
        Called when an idle manager is asked to make room for another version.
    """

    def __init__(self, services: Services, registry: Registry, handover: Callable[[], None]) -> None:
        self._services = services
        self._registry = registry
        self._handover = handover
        self._view = View(services)
        self.connected: Callable[[], int] = lambda: 0

    def routes(self) -> list[web.RouteDef]:
        """The table of routes."""
        return [
            web.get("/version", self.version),
            web.post("/handover", self.handover),
            web.get("/events", self.events),
            web.post("/images/trust", self.trust),
            web.get("/sandboxes", self.list),
            web.get(_SANDBOX, self.get),
            web.put(_SANDBOX, self.put),
            web.delete(_SANDBOX, self.delete),
            web.post(f"{_SANDBOX}/wake", self.wake),
            web.post(f"{_SANDBOX}/sleep", self.sleep),
            web.post(f"{_SANDBOX}/extend", self.extend),
            web.route("*", _SANDBOX + "/agent/{path:.*}", self.agent),
        ]

    async def version(self, _: web.Request) -> web.Response:
        """Who answers here."""
        body = {
            "package": __version__,
            "api": API,
            "pid": os.getpid(),
            "owner": self._services.owner,
            "idle": self._is_idle(),
        }
        return web.json_response(body)

    async def handover(self, request: web.Request) -> web.Response:
        """Make room for a manager of another version, if nothing is in flight; what runs goes on."""
        await _body(request)
        if not self._is_idle():
            raise error("SANDBOX_BUSY", "The manager is busy.", remedy="Try again when no cell or command runs.")
        self._handover()
        return web.Response(status=202)

    async def list(self, _: web.Request) -> web.Response:
        """Every sandbox of the asker, without waking one."""
        principal = self._principal("-")
        mine = (actor for actor in self._registry.all() if actor.record.owner == principal.owner)
        return web.json_response({"sandboxes": [self._view.summary(actor) for actor in mine]})

    async def get(self, request: web.Request) -> web.Response:
        """The status of one."""
        actor = await self._registry.get(*self._key(request))
        return web.json_response({"sandbox": await self._view.measured(actor)})

    async def put(self, request: web.Request) -> web.StreamResponse:
        """Get or create it, and make it run."""
        principal, sandbox_id = self._asked(request)
        wanted = Wanted.from_json(await _body(request))
        return await self._start(request, wanted, lambda: self._registry.get_or_create(principal, sandbox_id, wanted))

    async def wake(self, request: web.Request) -> web.StreamResponse:
        """Make an existing one run."""
        key = self._key(request)
        wanted = Wanted.from_json(await _body(request))
        return await self._start(request, wanted, lambda: self._registry.get(*key))

    async def delete(self, request: web.Request) -> web.Response:
        """Destroy it, whether it exists or not."""
        await self._registry.destroy(*self._key(request))
        return web.Response(status=204)

    async def sleep(self, request: web.Request) -> web.Response:
        """Put it to sleep now."""
        key, body = self._key(request), await _body(request)
        force = body.get("force", False)
        if not isinstance(force, bool):
            raise error("INVALID_REQUEST", "'force' is true or false.")
        actor = await self._registry.get(*key)
        await actor.sleep(force=force)
        return web.json_response({"sandbox": self._view.known(actor)})

    async def extend(self, request: web.Request) -> web.Response:
        """Put off the time at which it will sleep by itself."""
        (principal, sandbox_id), body = self._asked(request), await _body(request)
        seconds = parse_duration(body.get("duration"))
        refuse_extension(seconds, self._services.policy(principal))
        actor = await self._registry.get(principal.owner, sandbox_id)
        await actor.extend(seconds)
        return web.json_response({"sandbox": self._view.known(actor)})

    async def agent(self, request: web.Request) -> web.StreamResponse:
        """The agent proxy."""
        key = self._key(request)
        # The path as it came: what the router has decoded is not what would be matched and sent on.
        raw_path = request.rel_url.raw_path.split("/agent/", 1)[1]
        route = match(request.method, raw_path)
        if route is None:
            raise error("ROUTE_NOT_FOUND", "A sandbox has no such route.")
        actor = await self._registry.get(*key)
        if route.kind == "channel":
            return await open_channel(request, actor, raw_path)
        return await forward(request, actor, route, raw_path)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """What changes from now on, until the caller goes away."""
        principal = self._principal("-")
        response = await _ndjson(request)
        with self._services.events.listen() as mailbox:
            while True:
                for event in await mailbox.take():
                    if event["owner"] == principal.owner:
                        await response.write(line(event))

    async def trust(self, request: web.Request) -> web.Response:
        """From now on the name of an image stands for what it names at present."""
        self._principal("-")
        body = await _body(request)
        name = SandboxOptions(image=body.get("image")).image
        engine = self._services.engines.with_images()
        chosen = name or self._services.defaults.image or engine.default_image
        assert chosen is not None, "an engine with images has a default one"
        return web.json_response({"image": chosen, "id": await self._services.images.accept(engine, chosen)})

    def _key(self, request: web.Request) -> tuple[str, str]:
        principal, sandbox_id = self._asked(request)
        return principal.owner, sandbox_id

    def _asked(self, request: web.Request) -> tuple[Principal, str]:
        """Who asks for which sandbox."""
        sandbox_id = request.match_info["id"]
        ids.check(sandbox_id)
        return self._principal(request.match_info["owner"], sandbox_id), sandbox_id

    def _principal(self, owner: str, sandbox_id: str = "") -> Principal:
        principal = self._services.principals(owner)
        if principal is None:
            raise error("SANDBOX_NOT_FOUND", f"There is no sandbox {sandbox_id!r}.", id=sandbox_id)
        return principal

    def _is_idle(self) -> bool:
        """Whether nothing would be cut off by an exit: no start, nothing in flight, nobody else connected."""
        busy = any(actor.activity.in_flight or actor.is_changing for actor in self._registry.all())
        return not busy and self.connected() <= 1

    async def _start(
        self, request: web.Request, wanted: Wanted, find: Callable[[], Awaitable[Actor]]
    ) -> web.StreamResponse:
        if NDJSON not in request.headers.get("Accept", ""):
            actor = await find()
            if wanted.start:
                await actor.running(wanted)
            return web.json_response({"sandbox": self._view.known(actor)})
        actor = await find()  # An error up to here has a status of its own; after it, it is the last line.
        response = await _ndjson(request)
        async for item in self._steps(actor, wanted):
            await response.write(line(item))
        await response.write_eof()
        return response

    async def _steps(self, actor: Actor, wanted: Wanted) -> AsyncIterator[dict[str, Any]]:
        steps: asyncio.Queue[Step | None] = asyncio.Queue()
        with actor.steps.follow(steps.put_nowait):
            start = asyncio.ensure_future(actor.running(wanted) if wanted.start else asyncio.sleep(0))
            start.add_done_callback(lambda _: steps.put_nowait(None))
            try:
                while (step := await steps.get()) is not None:
                    yield {"step": step}
                await start
                yield {"sandbox": self._view.known(actor)}
            except SandboxError as exc:
                yield exc.to_json()
            finally:
                start.cancel()


async def _ndjson(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "Cache-Control": "no-store"})
    await response.prepare(request)
    return response


async def _body(request: web.Request) -> dict[str, Any]:
    if not request.body_exists:
        return {}
    if (request.content_length or 0) > _BODY_LIMIT:
        raise error("TOO_LARGE", f"A body has at most {_BODY_LIMIT} bytes.")
    try:
        body = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError) as exc:
        raise error("INVALID_REQUEST", f"The body is not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise error("INVALID_REQUEST", "The body is a JSON object.")
    return body
