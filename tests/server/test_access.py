"""Who may ask for what: nobody without a login, nothing from another site, and what the authorizer allows."""

import json
from typing import ClassVar

import aiohttp
import pytest
from jupyter_server.auth import Authorizer
from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider, User

from jupyter_sandbox.client.connection import Connection
from jupyter_sandbox.server import person
from jupyter_sandbox.server.relay import RelayHandler

from .servers import TOKEN
from .walk import UPGRADE, action, steps

UNSAFE = {"POST", "PUT", "DELETE", "PATCH"}
AGENT = "/sandboxes/-/one/agent"


@pytest.mark.parametrize("allow_unauthenticated_access", [False, True])
async def test_no_route_answers_anybody_without_credentials(start_server, environment, allow_unauthenticated_access):
    server = start_server(allow_unauthenticated_access=allow_unauthenticated_access)
    walked = list(steps(server))
    assert {step.handler for step in walked} >= set(RelayHandler.__subclasses__())
    async with server.stranger() as stranger:
        for step in walked:
            status, body = await step.ask(stranger, server, data=b"{}" if step.method in UNSAFE else None)
            if step.method == "OPTIONS":  # Jupyter's own answer to browsers that ask whether they may ask.
                assert (status, body) in [(200, b""), (204, b""), (403, body), (405, body)], step
            elif step.implemented or not allow_unauthenticated_access:
                assert status in (401, 403), (step, status)
            else:
                assert status in (403, 405), (step, status)
    assert environment.manager_pid is None


async def test_a_wrong_token_is_no_credential(server, environment):
    async with server.stranger(Authorization="token wrong") as stranger:
        for step in steps(server):
            if step.implemented and step.method != "OPTIONS":
                status, body = await step.ask(stranger, server)
                assert status == 403, step
                assert json.loads(body)["error"]["code"] == "LOGIN_REQUIRED", step
    assert environment.manager_pid is None


async def cookies(server):
    """The cookies of somebody who is logged in with a browser, and the value that its pages send along."""
    async with server.client() as client, client.get(server.at("/nothing")) as answer:
        jar = answer.cookies
    assert "_xsrf" in jar
    return "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items()), jar["_xsrf"].value


async def test_what_changes_something_needs_more_than_a_cookie(server, environment):
    cookie, _ = await cookies(server)
    started = environment.manager_pid
    async with server.stranger(Cookie=cookie) as browser:
        for step in steps(server):
            if step.implemented and step.method in UNSAFE:
                status, body = await step.ask(browser, server, data=b"{}")
                assert (status, b"_xsrf" in body) == (403, True), (step, body)
                status, body = await step.ask(browser, server, data=b"{}", headers={"Origin": "http://evil.example"})
                assert status in (403, 404), step
    assert environment.manager_pid == started


@pytest.mark.bubblewrap
async def test_a_page_of_this_server_may_do_what_its_user_may(server):
    cookie, xsrf = await cookies(server)
    async with server.stranger(Cookie=cookie, **{"X-XSRFToken": xsrf}) as page:
        async with page.put(server.at("/sandboxes/-/one"), json={}) as answer:
            assert answer.status == 200, await answer.text()
        async with page.put(server.at(AGENT + "/files?path=x"), data=b"x") as answer:
            assert answer.status == 204, await answer.text()


async def test_no_other_site_opens_a_channel_with_somebodys_cookie(server, environment):
    cookie, _ = await cookies(server)
    headers = {**UPGRADE, "Cookie": cookie, "Origin": "http://evil.example"}
    url = server.at(AGENT + "/api/kernels/k/channels")
    async with server.stranger(**headers) as browser, browser.get(url) as answer:
        assert answer.status == 403, await answer.text()
    assert environment.manager_pid is None


class Refuses(Authorizer):
    """Allows nothing, and remembers what it was asked."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def is_authorized(self, handler, user, action, resource):
        self.asked.append((action, resource))
        return False


async def test_every_verb_asks_the_authorizer_about_sandboxes_with_its_own_action(start_server, environment):
    server = start_server(authorizer_class=Refuses)
    async with server.client() as client:
        for _ in range(2):  # Jupyter's decorator remembers what it was first used for.
            for step in steps(server):
                if step.implemented and step.method != "OPTIONS":
                    Refuses.asked.clear()
                    status, body = await step.ask(client, server, data=b"x" if step.method in UNSAFE else None)
                    assert status == 403, step
                    assert json.loads(body)["error"]["code"] == "POLICY_DENIED", step
                    assert set(Refuses.asked) == {(action(step), "sandbox")}, step
    assert environment.manager_pid is None


class AllowsLooking(Authorizer):
    """Lets people read, and nothing else."""

    def is_authorized(self, handler, user, action, resource):
        return (action, resource) == ("read", "sandbox")


async def test_who_may_only_look_gets_lists_and_changes_nothing(start_server):
    server = start_server(authorizer_class=AllowsLooking)
    async with server.client() as client:
        async with client.get(server.at("/sandboxes")) as answer:
            assert (answer.status, await answer.json()) == (200, {"sandboxes": []})
        async with client.put(server.at("/sandboxes/-/one"), json={}) as answer:
            assert answer.status == 403
        async with client.get(server.at("/sandboxes")) as answer:
            assert await answer.json() == {"sandboxes": []}


async def test_an_upload_that_is_not_allowed_is_not_even_read(start_server, environment):
    server = start_server(authorizer_class=AllowsLooking)
    async with server.client() as client:

        async def endless():
            while True:
                yield b"x" * 65536

        # Refused while it is being sent: some see the answer, others that nobody reads on.
        try:
            async with client.put(server.at(AGENT + "/files?path=x"), data=endless()) as answer:
                assert answer.status == 403
        except aiohttp.ClientError:
            pass
    assert environment.manager_pid is None


# --- several people at one server ----------------------------------------------------------------------------------


class NamesPeople(IdentityProvider):
    """Everybody is who they say."""

    def get_user(self, handler):
        name = handler.request.headers.get("X-Person")
        return User(name) if name else None

    def should_check_origin(self, handler):
        return False

    def is_token_authenticated(self, handler):
        return True


async def asked_by(server, name, path="/sandboxes", **headers):
    async with server.stranger(**{"X-Person": name}, **headers) as client, client.get(server.at(path)) as answer:
        return answer.status, await answer.json()


async def test_where_people_are_told_apart_only_the_first_may_use_a_personal_manager(start_server, environment):
    server = start_server(identity_provider_class=NamesPeople)
    assert (await asked_by(server, "alice"))[0] == 200
    for path, headers in [("/sandboxes", {}), (AGENT + "/status", {}), (AGENT + "/api/kernels/k/channels", UPGRADE)]:
        status, body = await asked_by(server, "bob", path, **headers)
        assert (status, body["error"]["code"]) == (403, "SHARED_SERVER")
        assert "alice" not in json.dumps(body)
    assert (await asked_by(server, "alice"))[0] == 200


def test_who_was_first_is_remembered_when_the_server_starts_again(environment):
    person.FirstPerson(NamesPeople()).check(User("alice"))
    again = person.FirstPerson(NamesPeople())
    again.check(User("alice"))
    with pytest.raises(PermissionError):
        again.check(User("bob"))
    (path,) = environment.root.glob("d/sandbox/*/person.json")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_and_a_password_stand_for_one_person_and_a_subclass_may_not(environment):
    assert not person.names_people(IdentityProvider())
    assert not person.names_people(PasswordIdentityProvider())
    of_the_hub = {"__module__": "jupyterhub.singleuser.extension"}
    assert not person.names_people(type("JupyterHubIdentityProvider", (IdentityProvider,), of_the_hub)())
    assert person.names_people(NamesPeople())
    for name in ("random", "another"):
        person.FirstPerson(PasswordIdentityProvider()).check(User(name))


def test_a_record_that_cannot_be_read_admits_nobody(environment):
    first = person.FirstPerson(NamesPeople())
    first.check(User("alice"))
    (path,) = environment.root.glob("d/sandbox/*/person.json")
    path.write_text("{")
    with pytest.raises(PermissionError):
        first.check(User("alice"))


async def test_the_token_never_reaches_the_manager(server, monkeypatch):
    seen = []
    send = Connection.send

    async def watched(self, method, path, **options):
        seen.append((path, options.get("headers")))
        return await send(self, method, path, **options)

    monkeypatch.setattr(Connection, "send", watched)
    async with server.stranger() as client, client.get(server.at(f"/sandboxes?token={TOKEN}&a=b")) as answer:
        assert answer.status == 200
    ours = [(path, headers) for path, headers in seen if path.startswith("/sandboxes?")]
    assert [path for path, _ in ours] == ["/sandboxes?a=b"]
    assert TOKEN not in str(seen)
