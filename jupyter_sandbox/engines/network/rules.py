"""The packet filter around a bridge of sandboxes: written anew at every start and wake, and removed without a trace.

Two chains of our own, named after the bridge, hold the rules; jumps to them stand in front of everything else in
``INPUT`` (to this machine), ``FORWARD`` and Docker's ``DOCKER-USER`` (through it). What is forbidden is rejected, not
dropped, so that a program inside fails at once and the probe has an answer instead of a silence. IPv6 is closed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from ...errors import SandboxError, error
from .addresses import FORBIDDEN_IPV4

PREFIX = "jsb"
"""What the names of our bridges, and so of our chains, begin with."""

_LOCK_SECONDS = "10"
_SECONDS = 30
_ATTEMPTS = 3
_SBIN = "/usr/sbin:/sbin"
_OURS = re.compile(rf"^-A \S+ (-[io] \S+ -j {PREFIX}[0-9a-f]+-(in|forward)|-j DOCKER-USER)$")
"""Rules that may stand in front of ours: they let nothing pass."""


def bridge_of(installation: str) -> str:
    """The bridge of an installation's sandboxes; 15 characters are what the kernel allows."""
    return f"{PREFIX}{installation[:12]}"


def ensure(bridge: str, resolvers: Iterable[str]) -> None:
    """Make the rules around ``bridge`` as they must be, whatever they were. Idempotent; each table in one step.

    Parameters
    ----------
    resolvers:
        IPv4 name servers that may be asked (port 53) although their addresses are forbidden.

    Raises
    ------
    SandboxError
        ``NETWORK_UNAVAILABLE`` if this machine or this user cannot.
    """
    if os.geteuid() != 0:
        raise unavailable(
            "Only root can close a network of sandboxes to this machine and its neighbours, with iptables.",
            "Use `network='none'`, or run the manager as a service under root (see docs/isolation.md).",
        )
    answers = list(_ipv4(bridge, resolvers))
    _change("iptables", lambda: [*answers, *_jumps_in_front("iptables", bridge)])
    if _has_ipv6():
        _change("ip6tables", lambda: [*_ipv6(bridge), *_jumps_in_front("ip6tables", bridge)])


def remove(bridge: str) -> None:
    """Remove every rule and chain of ``bridge``. Idempotent."""
    for tool in _tools():
        if _chains_of(_listed(tool), bridge):
            _change(tool, partial(_removal, tool, bridge))


def bridges() -> set[str]:
    """The bridges for which this machine has chains of ours, there or gone; for the search for leftovers."""
    chains = [line.split()[1] for tool in _tools() for line in _listed(tool) if line.startswith("-N ")]
    found = (re.fullmatch(rf"({PREFIX}[0-9a-f]+)-(in|forward)", chain) for chain in chains)
    return {match[1] for match in found if match}


def unavailable(message: str, remedy: str | None = None) -> SandboxError:
    """The error ``NETWORK_UNAVAILABLE``."""
    return error("NETWORK_UNAVAILABLE", message, remedy=remedy)


def _ipv4(bridge: str, resolvers: Iterable[str]) -> Iterable[str]:
    inwards, through = _chains(bridge)
    reject = "-j REJECT --reject-with icmp-admin-prohibited"
    yield from (f":{inwards} - [0:0]", f":{through} - [0:0]")  # made, or emptied
    yield f"-A {inwards} {reject}"
    yield f"-A {through} ! -i {bridge} -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    yield f"-A {through} -o {bridge} -j DROP"  # from another sandbox, or begun elsewhere
    for resolver in resolvers:
        for protocol in ("udp", "tcp"):
            yield f"-A {through} -d {resolver}/32 -p {protocol} --dport 53 -j RETURN"
    for network in FORBIDDEN_IPV4:
        yield f"-A {through} -d {network} {reject}"


def _ipv6(bridge: str) -> Iterable[str]:
    for chain in _chains(bridge):
        yield f":{chain} - [0:0]"
        yield f"-A {chain} -j DROP"


def _chains(bridge: str) -> tuple[str, str]:
    return f"{bridge}-in", f"{bridge}-forward"


def _jumps_in_front(tool: str, bridge: str) -> list[str]:
    """The changes after which our jumps come first; none where they already do."""
    inwards, through = _chains(bridge)
    listed = _listed(tool)
    hooks = ["FORWARD", *(["DOCKER-USER"] if "-N DOCKER-USER" in listed else [])]
    wanted = [("INPUT", f"-i {bridge} -j {inwards}")]
    wanted += [(hook, f"-{way} {bridge} -j {through}") for hook in hooks for way in "io"]
    return [change for hook, rule in wanted for change in _in_front(listed, hook, rule)]


def _in_front(listed: Sequence[str], hook: str, rule: str) -> list[str]:
    rules = [line for line in listed if line.startswith(f"-A {hook} ")]
    present = rules.count(f"-A {hook} {rule}")
    first = next((place for place, line in enumerate(rules) if not _OURS.match(line)), len(rules))
    if present == 1 and f"-A {hook} {rule}" in rules[:first]:
        return []
    return [f"-D {hook} {rule}"] * present + [f"-I {hook} 1 {rule}"]


def _removal(tool: str, bridge: str) -> list[str]:
    listed = _listed(tool)
    chains = _chains_of(listed, bridge)
    jumps = [line for line in listed if line.startswith("-A ") and line.split()[-1] in chains]
    return [
        *(f"-D {line.removeprefix('-A ')}" for line in jumps),
        *(f"-{act} {chain}" for act in "FX" for chain in chains),
    ]


def _chains_of(listed: Sequence[str], bridge: str) -> list[str]:
    return [chain for chain in _chains(bridge) if f"-N {chain}" in listed]


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").exists()


def _tools() -> list[str]:
    """The programs that this machine has; for looking and removing, which need nothing where there is none."""
    wanted = ("iptables", "ip6tables") if _has_ipv6() else ("iptables",)
    return [tool for tool in wanted if _which(tool)] if os.geteuid() == 0 else []


def _listed(tool: str) -> list[str]:
    return _run([tool, "-w", _LOCK_SECONDS, "-S"]).splitlines()


def _change(tool: str, changes: Callable[[], list[str]]) -> None:
    """Apply what ``changes()`` says in one step; anew, if somebody else changed the table in between."""
    for attempt in range(_ATTEMPTS):
        script = "\n".join(["*filter", *changes(), "COMMIT", ""])
        try:
            _run([f"{tool}-restore", "-w", _LOCK_SECONDS, "--noflush"], script)
            return
        except SandboxError:
            if attempt == _ATTEMPTS - 1:
                raise


def _run(command: list[str], stdin: str = "") -> str:
    program = _which(command[0])
    if program is None:
        raise unavailable(f"{command[0]} is not installed.", "Install the package `iptables`, then try again.")
    try:
        done = subprocess.run([program, *command[1:]], input=stdin, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise unavailable(f"{command[0]} did not end within {_SECONDS} seconds.", "Try again.") from exc
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[0][:300]
        raise unavailable(f"The rules that close the network cannot be set: {command[0]}: {said}.")
    return done.stdout


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
