"""Addresses that no sandbox may reach, and those of this machine."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

FORBIDDEN_IPV4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # of carriers; some clouds keep their metadata and name servers here
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local, and the metadata of every cloud
    "172.16.0.0/12",  # private, and Docker's own
    "192.0.0.0/24",  # of protocols
    "192.88.99.0/24",  # tunnels of IPv6
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # for measuring
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
)
"""Networks of IPv4 that are not the internet. Those for documentation lead nowhere and are not listed."""

METADATA = ("169.254.169.254", 80)
"""Where a cloud tells a machine its credentials."""

_RESOLV_CONF = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def host_addresses(tables: Path = Path("/proc/self/net")) -> list[str]:
    """The IPv4 addresses of this machine, without loopback: what the kernel would take as its own."""
    text = (tables / "fib_trie").read_text()
    found = re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", text)
    return [one for one in dict.fromkeys(found) if not ipaddress.ip_address(one).is_loopback]


def link_local(interface: str, tables: Path = Path("/proc/self/net")) -> list[str]:
    """The link-local IPv6 addresses that this machine has on ``interface``."""
    try:
        lines = (tables / "if_inet6").read_text().splitlines()
    except FileNotFoundError:  # a kernel without IPv6
        return []
    words = [line.split() for line in lines]
    return [str(ipaddress.IPv6Address(int(word[0], 16))) for word in words if word[5] == interface and word[3] == "20"]


def resolvers(files: tuple[Path, ...] = _RESOLV_CONF) -> list[str]:
    """The IPv4 name servers that a container's names are asked of, as far as they are not this machine itself.

    Docker takes them from the first of ``files``; where that names a local stub only, from the next one. A link-local
    one is never among them: behind it are a cloud's credentials.
    """
    for path in files:
        found = [one for one in _nameservers(path) if not one.is_loopback]
        if found:
            return [str(one) for one in found if not one.is_link_local and str(one) not in host_addresses()]
    return []


def _nameservers(path: Path) -> list[ipaddress.IPv4Address]:
    try:
        text = path.read_text()
    except OSError:
        return []
    found = []
    for word in re.findall(r"(?m)^\s*nameserver\s+(\S+)", text):
        try:
            found.append(ipaddress.IPv4Address(word))
        except ValueError:  # IPv6, which sandboxes have not
            continue
    return found
