# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may come in and go out, as the plan says it; every mistake in it is reported at once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

TABLE = "selfhost_fleet"
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
Entry: TypeAlias = "Mapping[str, object]"
Parsed = TypeVar("Parsed")


class FirewallError(Exception):
    """What is wrong with a rule, or what nft said; written for the operator."""


@dataclass(frozen=True)
class Rate:
    """New connections of one source: so many a minute, and so many at once."""

    per_minute: int
    burst: int


@dataclass(frozen=True)
class Rule:
    """One port that may be reached, and by whom; no networks means by anybody."""

    port: int
    protocol: str
    networks: tuple[Network, ...]
    why: str
    rate: Rate | None = None

    def admits(self, address: str, port: int) -> bool:
        """Whether a TCP connection from this address to this port is let in by this rule."""
        if self.protocol != "tcp" or self.port != port:
            return False
        if not self.networks:
            return True
        source = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped:
            source = source.ipv4_mapped
        return any(source.version == network.version and source in network for network in self.networks)


@dataclass(frozen=True)
class Way:
    """What may go out: to which networks (none: to any), to which port (none: all), for which users (none: all)."""

    port: int | None
    protocol: str  # tcp, udp, or any
    networks: tuple[Network, ...]
    users: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Ruleset:
    """The whole of a host's firewall; without `outbound` everything may go out."""

    inbound: tuple[Rule, ...] = ()
    outbound: tuple[Way, ...] | None = None
    trusted: tuple[Network, ...] = ()  # sources whose new connections are not counted

    @property
    def users(self) -> set[str]:
        """System users that the rules name: they have to be there before nft can load them."""
        return {user for way in self.outbound or () for user in way.users}


def parse(inbound: Sequence[Entry], outbound: Sequence[Entry] | None = None, trusted: Sequence[str] = ()) -> Ruleset:
    """The plan's lists as rules."""
    mistakes: list[str] = []
    ruleset = Ruleset(
        inbound=_all("inbound", inbound, _rule, mistakes),
        outbound=None if outbound is None else _all("outbound", outbound, _way, mistakes),
        trusted=_all("trusted", trusted, _network, mistakes),
    )
    if mistakes:
        raise FirewallError("; ".join(mistakes))
    return ruleset


Given = TypeVar("Given")


def _all(
    option: str, given: Sequence[Given], one: Callable[[Given], Parsed], mistakes: list[str]
) -> tuple[Parsed, ...]:
    parsed: list[Parsed] = []
    for index, entry in enumerate(given):
        try:
            parsed.append(one(entry))
        except FirewallError as error:
            mistakes.append(f"{option}[{index}]: {error}")
    return tuple(parsed)


def _rule(entry: Entry) -> Rule:
    protocol = entry.get("protocol", "tcp")
    if protocol not in ("tcp", "udp"):
        raise FirewallError(f"{protocol!r} is not a protocol; give tcp or udp")
    port = _port(entry.get("port"))
    return Rule(
        port=port,
        protocol=str(protocol),
        networks=_networks(entry.get("sources"), f"port {port} has no sources"),
        why=str(entry.get("why") or ""),
        rate=_rate(entry.get("rate")),
    )


def _way(entry: Entry) -> Way:
    protocol, port = entry.get("protocol", "tcp"), entry.get("port")
    if protocol not in ("tcp", "udp", "any"):
        raise FirewallError(f"{protocol!r} is not a protocol; give tcp, udp or any")
    if (port is None) != (protocol == "any"):
        raise FirewallError("a port goes with tcp or udp, and the protocol any is without one")
    users = entry.get("users") or ()
    if not isinstance(users, (list, tuple)) or not all(USER.fullmatch(str(user)) for user in users):
        raise FirewallError(f"{users!r} is no list of system users")
    return Way(
        port=None if port is None else _port(port),
        protocol=str(protocol),
        networks=_networks(entry.get("destinations"), "it has no destinations"),
        users=tuple(str(user) for user in users),
        why=str(entry.get("why") or ""),
    )


def _port(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise FirewallError(f"{value!r} is not a port; give a number from 1 to 65535")
    return value


def _rate(value: object) -> Rate | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        numbers = [value.get("per_minute"), value.get("burst")]
        whole = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
        if len(whole) == len(numbers) and min(whole) >= 1:
            return Rate(per_minute=whole[0], burst=whole[1])
    raise FirewallError(f"{value!r} is not a rate; give per_minute and burst, both at least 1")


def _networks(value: object, missing: str) -> tuple[Network, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        # An empty list would otherwise read as "anybody", the opposite of what it says.
        raise FirewallError(f"{missing}; give addresses, networks or any")
    return () if "any" in value else tuple(_network(str(text)) for text in value)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise FirewallError(f"{text!r} is neither any nor an address nor a network ({error})") from error
