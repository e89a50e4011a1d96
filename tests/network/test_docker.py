"""A container with the network ``internet`` reaches the internet and nothing nearer; every wall is tried without it."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from jupyter_sandbox.engines.base import Runtime
from jupyter_sandbox.engines.docker.network import network_name
from jupyter_sandbox.engines.network import addresses, probe, rules
from jupyter_sandbox.errors import SandboxError

from ..engines.docker.conftest import Place, run_docker
from .conftest import DNS, NOT_PUBLIC, PUBLIC, World, mentions, serve_inside, tried

pytestmark = [pytest.mark.docker, pytest.mark.root]

MakePlace = Callable[[], Place]


def open_the_bridge(place: Place) -> None:
    """Take every wall away: what is then reached is what the walls keep out."""
    bridge = rules.bridge_of(place.installation)
    rules.remove(bridge)
    # Docker has a wall of its own between containers, which comes after this:
    subprocess.run(["iptables", "-w", "-I", *between_neighbours(place)], check=True, timeout=30)
    for port in Path(f"/sys/class/net/{bridge}/brif").iterdir():
        (port / "isolated").write_text("0")


def between_neighbours(place: Place) -> list[str]:
    bridge = rules.bridge_of(place.installation)
    return ["FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"]


def gateway(place: Place) -> str:
    return run_docker(
        "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network_name(place.installation)
    )


def address(place: Place) -> str:
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return run_docker("inspect", "-f", networks, place.name)


def all_closed(runtime: Runtime, targets: list[tuple[str, int]]) -> bool:
    answers = dict(zip(targets, tried(runtime, *targets), strict=True))
    reached = {target: answer for target, answer in answers.items() if not answer.startswith("unreachable")}
    assert not reached
    return True


async def test_the_internet_is_reached_with_internet_and_not_with_none(places: MakePlace, world: World) -> None:
    without = await places().start()
    place = places()
    assert tried(await place.start(network="internet"), (PUBLIC, world.port)) == ["served"]
    assert all_closed(without, [(PUBLIC, world.port)])


async def test_nothing_of_this_machine_of_neighbours_or_of_private_networks_is_reached(
    places: MakePlace, world: World
) -> None:
    place, neighbour = places(), places()
    runtime, other = await place.start(network="internet"), await neighbour.start(network="internet")
    port = serve_inside(other)
    near = [*world.beyond(), (gateway(place), world.port_here), (address(neighbour), port), (neighbour.name, port)]
    metadata = [("169.254.169.254", 80), ("169.254.169.254", 53)]
    assert all_closed(runtime, near + metadata)

    open_the_bridge(place)
    try:
        assert dict(zip(near, tried(runtime, *near), strict=True)) == dict.fromkeys(near, "served")
        await place.engine.freeze(runtime)
        await place.engine.thaw(runtime)
        assert all_closed(runtime, near + metadata)
    finally:
        subprocess.run(["iptables", "-w", "-D", *between_neighbours(place)], check=True, timeout=30)
    assert tried(runtime, (PUBLIC, world.port)) == ["served"]


async def test_nobody_outside_begins_a_connection_into_a_sandbox(places: MakePlace, world: World) -> None:
    place = places()
    runtime = await place.start(network="internet")
    bridge = rules.bridge_of(place.installation)
    (forward,) = [line for line in mentions(bridge) if line.endswith(f"-A {bridge}-forward -o {bridge} -j DROP")]
    assert forward.startswith("iptables")
    assert tried(runtime, (PUBLIC, world.port)) == ["served"]  # answers come in all the same


async def test_the_walls_hold_for_ipv6_too_should_a_container_have_it(places: MakePlace) -> None:
    place = places()
    runtime = await place.start(network="internet")
    bridge, pid = rules.bridge_of(place.installation), runtime.handle["pid"]
    settings = (
        "cd /proc/sys/net/ipv6/conf && for of in all eth0; do echo 0 >$of/accept_dad; echo 0 >$of/disable_ipv6; done"
    )
    done = subprocess.run(["nsenter", "-t", str(pid), "-n", "sh", "-c", settings], capture_output=True, timeout=30)
    if done.returncode or not addresses.link_local(bridge):
        pytest.skip("this kernel has no IPv6")
    here = [(one, 9) for one in addresses.link_local(bridge)]
    assert probe.reached(pid, here, 2) == []
    rules.remove(bridge)
    until = time.monotonic() + 30  # the kernel first makes sure of new addresses
    while probe.reached(pid, here, 1) != here:
        assert time.monotonic() < until
        await asyncio.sleep(0.1)
    await place.engine.thaw(runtime)  # idempotent for what runs: it makes the rules anew
    assert probe.reached(pid, here, 2) == []


async def test_a_rule_that_somebody_put_in_front_of_ours_does_not_stay_in_front(
    places: MakePlace, world: World
) -> None:
    place = places()
    runtime = await place.start(network="internet")
    bridge, here = rules.bridge_of(place.installation), [(gateway(place), world.port_here)]
    foreign = ["INPUT", "-i", bridge, "-j", "ACCEPT"]
    subprocess.run(["iptables", "-w", "-I", *foreign], check=True, timeout=30)
    try:
        assert tried(runtime, *here) == ["served"]
        await place.engine.thaw(runtime)
        assert all_closed(runtime, here)
    finally:
        subprocess.run(["iptables", "-w", "-D", *foreign], check=True, timeout=30)


async def test_rules_made_anew_are_the_same_rules(places: MakePlace) -> None:
    place = places()
    runtime = await place.start(network="internet")
    before = mentions(bridge := rules.bridge_of(place.installation))
    await place.engine.thaw(runtime)
    assert mentions(bridge) == before
    rules.remove(bridge)
    await asyncio.gather(*(place.engine.thaw(runtime) for _ in range(5)))
    assert sorted(mentions(bridge)) == sorted(before)
    assert len(before) == len(set(before))


async def test_of_a_private_name_server_nothing_but_its_names_is_reached(
    places: MakePlace, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver, other, *_ = NOT_PUBLIC
    monkeypatch.setattr(addresses, "resolvers", lambda: [resolver])
    runtime = await places().start(network="internet")
    assert tried(runtime, (resolver, DNS)) == ["served"]
    assert all_closed(runtime, [(resolver, world.port), (other, DNS)])


async def test_what_is_not_closed_is_not_started(
    places: MakePlace, monkeypatch: pytest.MonkeyPatch, client: docker.APIClient
) -> None:
    place = places()
    monkeypatch.setattr(rules, "ensure", lambda bridge, resolvers: None)
    with pytest.raises(SandboxError) as caught:
        await place.start(network="internet")
    assert caught.value.code == "NETWORK_UNAVAILABLE"
    assert "can be reached" in caught.value.message
    assert not client.containers(all=True, filters={"name": place.name})
    assert not client.networks(names=[network_name(place.installation)])


async def test_who_may_not_write_rules_is_told_what_to_do(
    places: MakePlace, monkeypatch: pytest.MonkeyPatch, client: docker.APIClient
) -> None:
    place = places()
    with monkeypatch.context() as patched:
        patched.setattr("os.geteuid", lambda: 1000)
        with pytest.raises(SandboxError) as caught:
            await place.start(network="internet")
    assert caught.value.code == "NETWORK_UNAVAILABLE"
    assert "root" in caught.value.message
    assert "network='none'" in caught.value.remedy
    assert not client.networks(names=[network_name(place.installation)])


async def test_network_and_rules_stay_until_the_last_sandbox_is_destroyed(
    places: MakePlace, client: docker.APIClient
) -> None:
    first, second = places(), places()
    runtime = await first.start(network="internet")
    await second.start(network="internet")
    bridge = rules.bridge_of(first.installation)
    await first.engine.stop(runtime, 1)
    await second.destroy()
    assert client.networks(names=[network_name(first.installation)])
    assert bridge in rules.bridges()
    await first.destroy()
    assert not client.networks(names=[network_name(first.installation)])
    assert not mentions(bridge)


async def test_a_stopped_sandbox_starts_again_after_somebody_removed_its_network(
    places: MakePlace, world: World, client: docker.APIClient
) -> None:
    place = places()
    await place.engine.stop(await place.start(network="internet"), 1)
    client.remove_network(network_name(place.installation))
    assert tried(await place.start(network="internet"), (PUBLIC, world.port)) == ["served"]


async def test_what_a_killed_manager_left_is_removed_on_request(places: MakePlace, client: docker.APIClient) -> None:
    place = places()
    await place.start(network="internet")
    client.remove_container(place.name, force=True, v=True)
    client.remove_volume(place.name)
    assert mentions(rules.bridge_of(place.installation))
    await place.engine.tidy(place.installation)
    assert not mentions(rules.bridge_of(place.installation))
    assert not client.networks(names=[network_name(place.installation)])


def test_every_kind_of_address_that_is_no_internet_is_tried(world: World) -> None:
    assert {target for target, _ in world.beyond()} > set(NOT_PUBLIC)
