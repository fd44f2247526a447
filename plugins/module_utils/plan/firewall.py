# GNU General Public License v3.0+ (see LICENSE)
"""A host's firewall and bans: what may come in, what may go out, who is never limited, and what counts as a failed login."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from . import certificates
from .components import sources
from .findings import Findings
from .model import Data, Host
from .network import ANY, Topology, ports

# One source's new SSH connections. Ansible keeps one open per host, or opens one per task where it cannot.
SSH_RATE = {"per_minute": 60, "burst": 60}
# Seconds. A person mistypes a password a few times; whoever guesses does not stop at that.
BANS: Data = {
    "ssh": {"failures": 5, "window": 600, "duration": 3600},
    "login": {"failures": 10, "window": 600, "duration": 3600},
}
LOGIN_PORTS = [80, 443]
WEB_PORTS = {"http": 80, "https": 443}


def firewall(topology: Topology, host: Host) -> Data:
    """The part `firewall` of a host's slice."""
    wanted = topology.inventory.variables.get("fleet_firewall") or {}
    return {
        "inbound": inbound(topology, host, wanted.get("ssh_rate", SSH_RATE)),
        "outbound": outbound(topology, host, wanted) if wanted.get("egress") == "closed" else None,
        "trusted": trusted(topology, wanted),
    }


def inbound(topology: Topology, host: Host, ssh_rate: Data | bool) -> list[Data]:
    """What may come in. A port without sources has no rule."""
    return [
        {
            "port": port.number,
            "protocol": "tcp",
            "sources": list(port.sources),
            "rate": ssh_rate if port.user == "ssh" and ssh_rate else None,
            "why": port.why,
        }
        for port in ports(topology, host)
        if port.sources
    ]


def outbound(topology: Topology, host: Host, wanted: Data) -> list[Data]:
    """What may go out: what every host needs, what other hosts of the fleet let this one in to, and what the inventory names."""
    resolvers = [str(address) for address in wanted.get("resolvers", [ANY])]
    ways = [
        _way(53, "udp", resolvers, "DNS"),
        _way(53, "tcp", resolvers, "DNS: long answers"),
        _way(123, "udp", [ANY], "NTP"),
        # Mirrors and certificate authorities change their addresses: they are known by who asks, and a service is neither of these.
        *(
            _way(port, "tcp", [ANY], "packages, releases, certificates", ["root", "_apt"])
            for port in WEB_PORTS.values()
        ),
        *(_way(port, "tcp", [ANY], why, ["root"]) for port, why in sorted(_other_web_ports(topology, host).items())),
    ]
    for other in topology.inventory.hosts.values():
        ways += [
            _way(port.number, "tcp", [other.address], f"to {other.name}: {port.why}")
            for port in ports(topology, other)
            if other != host and host.address in port.sources
        ]
    for service in topology.on(host):
        destinations = [str(address) for address in service.wanted.get("egress", [])]
        users = sorted({str(part.get("user", service.name)) for part in service.components.values()})
        if destinations:
            ways.append(_way(None, "any", destinations, f"egress of {service.name}", users))
    ways += [
        _way(extra["port"], extra.get("protocol", "tcp"), extra["destinations"], extra["why"], extra.get("users", []))
        for extra in wanted.get("outbound", [])
    ]
    return ways


def _other_web_ports(topology: Topology, host: Host) -> dict[int, str]:
    """Ports of addresses that the host's own programs and its authority are fetched from, where they are none of the usual."""
    addresses = [
        (url, f"releases of {service.name}")
        for service in topology.on(host)
        for url in sources(topology, service, host)
    ]
    if authority := certificates.acme(topology, host):
        addresses.append((authority["server"], "certificates"))
    found = {port: why for url, why in addresses if (port := web_port(url))}
    return {port: why for port, why in found.items() if port not in WEB_PORTS.values()}


def web_port(url: str) -> int | None:
    """The port of an address; None where it is none, as a file on the controller is."""
    try:
        parts = urlsplit(url)
        return parts.port or WEB_PORTS.get(parts.scheme) if parts.hostname else None
    except ValueError:
        return None


def _way(port: int | None, protocol: str, destinations: list[str], why: str, users: list[str] | None = None) -> Data:
    return {"port": port, "protocol": protocol, "destinations": destinations, "users": users or [], "why": why}


def trusted(topology: Topology, wanted: Data) -> list[str]:
    """Who is neither limited nor banned: the fleet itself, and whom the inventory names."""
    own = [host.address for host in topology.inventory.hosts.values() if _is_network(host.address)]
    return list(dict.fromkeys([*own, *(str(network) for network in wanted.get("trusted", []))]))


def bans(topology: Topology, host: Host) -> Data | None:
    """The part `bans` of a host's slice: after how many failures a source is shut out of what; None where it never is."""
    wanted = topology.inventory.variables.get("fleet_firewall") or {}
    given = wanted.get("bans", {})
    if given is False:
        return None
    ports_of = {"ssh": [host.ssh_port]}
    if host in topology.edges and any(logins(service.contract) for service in topology.services):
        ports_of["login"] = LOGIN_PORTS
    ports_of = {name: numbers for name, numbers in ports_of.items() if given.get(name) is not False}
    if not ports_of:
        return None
    limits = {name: {**BANS[name], **given.get(name, {})} for name in ports_of}
    return {"limits": limits, "ports": ports_of, "trusted": trusted(topology, wanted)}


def logins(contract: Data) -> list[Data]:
    """The routes by which users of a service log in."""
    return [route for route in contract.get("routes", []) if route.get("login")]


def check(topology: Topology, findings: Findings) -> None:
    """Addresses in the words of the firewall; the schema has looked at everything else."""
    wanted = topology.inventory.variables.get("fleet_firewall") or {}
    named = [
        *(
            (f"fleet_ssh_sources.{number}", text)
            for number, text in _each(topology.inventory.variables, "fleet_ssh_sources")
        ),
        *(
            (f"fleet_firewall.{key}.{number}", text)
            for key in ("resolvers", "trusted")
            for number, text in _each(wanted, key)
        ),
        *(
            (f"fleet_firewall.outbound.{index}.destinations.{number}", text)
            for index, extra in _each(wanted, "outbound")
            if isinstance(extra, dict)
            for number, text in _each(extra, "destinations")
        ),
    ]
    for variable, text in named:
        if not (_is_network(text) or (text == ANY and not variable.startswith("fleet_firewall.trusted"))):
            findings.add(
                variable,
                f"{text} is neither an address nor a network",
                "Write an address such as 203.0.113.7, or a network such as 203.0.113.0/24 or 2001:db8::/32",
            )


def _each(node: Data, key: str) -> list[tuple[int, object]]:
    value = node.get(key)
    return list(enumerate(value)) if isinstance(value, list) else []


def _is_network(text: object) -> bool:
    try:
        ipaddress.ip_network(str(text))
    except ValueError:
        return False
    return True
