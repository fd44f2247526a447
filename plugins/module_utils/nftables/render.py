# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host's firewall as the text of one nftables table.

What ICMP a host has to let through is RFC 4890's (section 4.4), and for IPv4 what path MTU discovery needs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from .rules import TABLE, Network, Rate, Rule, Ruleset, Way

COMMENT_BYTES = 128  # nftables refuses longer comments
# A client chooses freely among the addresses of its own /64.
V6_SOURCE = "ip6 saddr & ffff:ffff:ffff:ffff::"
SOURCE = {4: "ip saddr", 6: V6_SOURCE}
TRACKED_SOURCES = (
    65535  # beyond these a new source is not counted: an attacker cannot shut others out by filling the set
)

HEAD = f"""\
# The whole firewall of this host, derived from the plan of selfhost.fleet. Changes made here are taken back.
# Loaded in one transaction: there is no moment without a firewall.
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
"""

INPUT = """\
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\tct state established,related accept
\t\tct state invalid drop
\t\tiif "lo" accept
\t\ticmp type { destination-unreachable, time-exceeded, parameter-problem } accept comment "errors and path MTU"
\t\ticmp type echo-request limit rate 20/second burst 40 packets accept
\t\tip6 hoplimit 255 icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept \
comment "neighbour discovery, from this link only"
\t\tip6 saddr fe80::/10 icmpv6 type { mld-listener-query, mld-listener-report, \
mld-listener-done, mld2-listener-report } \
accept comment "multicast listeners"
\t\ticmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept \
comment "errors and path MTU"
\t\ticmpv6 type echo-request limit rate 20/second burst 40 packets accept
\t\tudp sport 67 udp dport 68 accept comment "DHCP: answers to a broadcast, which connection tracking does not see"
\t\tip6 saddr fe80::/10 udp dport 546 accept \
comment "DHCPv6 answers, which connection tracking does not see"
"""

OUTPUT = """\
\tchain output {
\t\ttype filter hook output priority filter; policy drop;
\t\tct state established,related accept
\t\toif "lo" accept
\t\ticmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request, echo-reply } accept
\t\tip protocol igmp accept comment "multicast listeners"
\t\ticmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept comment "neighbour discovery"
\t\ticmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept \
comment "multicast listeners"
\t\ticmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, \
echo-request, echo-reply } accept
\t\tudp sport 68 udp dport 67 accept comment "DHCP"
\t\tudp sport 546 udp dport 547 accept comment "DHCPv6"
"""

DROPPED = '\t\tcounter comment "dropped"\n'
# A program of this host learns at once that it may not, instead of waiting for its time-out.
REFUSED = '\t\tcounter reject with icmpx admin-prohibited comment "refused"\n'
END = "\t}\n"


def render(ruleset: Ruleset) -> str:
    """The text for `nft -f`: replaces the table by these rules in one transaction."""
    limited = {(rule.protocol, rule.port): (rule, rule.rate) for rule in ruleset.inbound if rule.rate}
    text = HEAD + "".join(_counting_sets(rule, rate) for rule, rate in limited.values()) + INPUT
    text += _lines(line for rule, rate in limited.values() for line in _limits(rule, rate, ruleset.trusted))
    text += _lines(line for rule in ruleset.inbound for line in _accepts(rule)) + DROPPED + END
    if ruleset.outbound is not None:
        text += OUTPUT + _lines(line for way in ruleset.outbound for line in _ways(way)) + REFUSED + END
    return text + "}\n"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"\t\t{line}\n" for line in dict.fromkeys(lines))


def _set_name(rule: Rule, version: int) -> str:
    return f"new_{rule.protocol}_{rule.port}_v{version}"


def _counting_sets(rule: Rule, rate: Rate) -> str:
    return "".join(
        f"\tset {_set_name(rule, version)} {{\n\t\ttype ipv{version}_addr\n\t\tsize {TRACKED_SOURCES}\n"
        f"\t\tflags dynamic,timeout\n\t\ttimeout {_forget_after(rate)}s\n\t}}\n"
        for version in (4, 6)
    )


def _forget_after(rate: Rate) -> int:
    """Seconds after which a quiet source has its whole burst again, and so need not be remembered."""
    return max(60, -(-60 * rate.burst // rate.per_minute))


def _limits(rule: Rule, rate: Rate, trusted: Sequence[Network]) -> list[str]:
    """Drops new connections of a source that opens too many. Its client tries again by itself, so a burst is slowed down."""
    lines = []
    for version in (4, 6):
        others = _match("saddr", trusted, version=version, negated=True)
        if others is None:
            continue  # every source of this version is trusted
        count = (
            f"update @{_set_name(rule, version)} {{ {SOURCE[version]} "
            f"limit rate over {rate.per_minute}/minute burst {rate.burst} packets }}"
        )
        lines.append(
            f'{others}{rule.protocol} dport {rule.port} ct state new {count} counter drop comment "too many at once"'
        )
    return lines


def _accepts(rule: Rule) -> list[str]:
    verdict = f"{rule.protocol} dport {rule.port} accept{_comment(rule.why)}"
    return [match + verdict for match in _matches("saddr", rule.networks)]


def _ways(way: Way) -> list[str]:
    port = "" if way.port is None else f"{way.protocol} dport {way.port} "
    users = f"meta skuid {{ {', '.join(way.users)} }} " if way.users else ""
    return [f"{match}{users}{port}accept{_comment(way.why)}" for match in _matches("daddr", way.networks)]


def _matches(side: str, networks: Sequence[Network]) -> list[str]:
    """What matches these networks, one for each IP version that they have; no networks match everything."""
    if not networks:
        return [""]
    found = [_match(side, networks, version=version) for version in (4, 6)]
    return [match for match in found if match is not None]


def _match(side: str, networks: Sequence[Network], *, version: int, negated: bool = False) -> str | None:
    """The match on the addresses of one IP version that are in the networks (negated: that are not); None: nothing matches."""
    # Overlapping networks in one set are refused by nftables. All are of one version, which the type cannot say.
    collapsed = list(ipaddress.collapse_addresses([n for n in networks if n.version == version]))  # type: ignore[type-var]
    family = f"meta nfproto ipv{version} "
    if not collapsed:
        return family if negated else None
    if collapsed[0].prefixlen == 0:
        return None if negated else family
    whole = {4: 32, 6: 128}[version]
    names = ", ".join(str(n.network_address) if n.prefixlen == whole else str(n) for n in collapsed)
    keyword = {4: "ip", 6: "ip6"}[version]
    return f"{keyword} {side} {'!= ' if negated else ''}{{ {names} }} "


def _comment(why: str) -> str:
    """The reason as nftables takes it: one line, without quotes, at most 128 bytes."""
    text = " ".join(why.split()).replace('"', "'").replace("\\", "/")
    text = text.encode()[:COMMENT_BYTES].decode(errors="ignore")
    return f' comment "{text}"' if text else ""
