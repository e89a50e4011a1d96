"""Which addresses are forbidden, which are this machine's, and which name servers may be asked."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from jupyter_sandbox.engines.network.addresses import FORBIDDEN_IPV4, METADATA, host_addresses, resolvers

NETWORKS = [ipaddress.ip_network(network) for network in FORBIDDEN_IPV4]
DOCUMENTATION = [ipaddress.ip_network(f"{block}.0/24") for block in ("192.0.2", "198.51.100", "203.0.113")]


def forbidden(address: str) -> bool:
    return any(ipaddress.ip_address(address) in network for network in NETWORKS)


def test_whatever_python_knows_as_not_global_is_forbidden_but_for_documentation() -> None:
    for first in range(256):
        for second in range(256):
            address = ipaddress.IPv4Address(f"{first}.{second}.0.1")
            if not address.is_global and not any(address in network for network in DOCUMENTATION):
                assert forbidden(str(address)), address


@pytest.mark.parametrize("address", [METADATA[0], "255.255.255.255", "224.0.0.251", "127.0.0.1", "100.100.100.200"])
def test_metadata_broadcast_multicast_and_loopback_are_forbidden(address: str) -> None:
    assert forbidden(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "9.9.9.9", "172.32.0.1", "100.128.0.1", "169.253.1.1"])
def test_the_internet_is_not_forbidden(address: str) -> None:
    assert not forbidden(address)


def test_this_machines_addresses_are_those_that_the_kernel_takes_as_its_own(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Main:\n  |-- 10.0.0.0\n     /24 link UNICAST\n  |-- 10.0.0.7\n     /32 host LOCAL\n"
        "  |-- 10.0.0.255\n     /32 link BROADCAST\n  |-- 127.0.0.1\n     /32 host LOCAL\n"
        "Local:\n  |-- 10.0.0.7\n     /32 host LOCAL\n"
    )
    assert host_addresses(tmp_path) == ["10.0.0.7"]


def test_a_name_server_may_be_asked_but_for_loopback_and_link_local_ones(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "search x\nnameserver 10.9.8.7\nnameserver 169.254.169.254\nnameserver fe80::1\nnameserver 127.0.0.1\n"
    )
    assert resolvers((file,)) == ["10.9.8.7"]


def test_behind_a_local_stub_are_the_name_servers_that_it_asks(tmp_path: Path) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n")
    real.write_text("nameserver 10.9.8.7\n")
    assert resolvers((stub, real)) == ["10.9.8.7"]
    assert resolvers((stub, tmp_path / "missing")) == []
