# GNU General Public License v3.0+ (see LICENSE)
"""Who listens where, and who may reach it: the users of every port of every host, and the firewall that follows from them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from .findings import Findings
from .model import SLOTS, Host, Inventory, Service

POSTGRES_PORT = 5432
POOLER_PORT = 6432
REHEARSAL_PORT = 5431  # nothing listens there but a copy of a database, while a release is tried with it
ANY = "any"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Port:
    """A port of a host: its user, and the sources that may reach it (none: loopback only)."""

    number: int
    user: str
    variable: str
    sources: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Link:
    """A host that connects to another one, and for what."""

    client: Host
    server: Host
    purpose: str


def in_url(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


@dataclass
class Topology:
    """Which hosts do what."""

    inventory: Inventory
    services: list[Service]
    edges: list[Host] = field(init=False)
    databases: list[Host] = field(init=False)
    monitors: list[Host] = field(init=False)

    def __post_init__(self) -> None:
        self.edges = self.inventory.members("edge")
        self.databases = self.inventory.members("postgres")
        self.monitors = self.inventory.members("monitor")

    @property
    def database(self) -> Host | None:
        """The host whose PostgreSQL takes writes: the first of its group."""
        return self.databases[0] if self.databases else None

    def on(self, host: Host) -> list[Service]:
        return [service for service in self.services if host in service.hosts]

    def pooled(self, host: Host) -> list[Service]:
        """Services on a host that reach PostgreSQL through its pooler."""
        return [service for service in self.on(host) if service.database]

    @property
    def pooler_hosts(self) -> list[Host]:
        return [host for host in self.inventory.hosts.values() if self.pooled(host)]

    def listen(self, host: Host) -> str:
        """Where components of a host listen: loopback where nobody else has to reach them."""
        return LOOPBACK if all(edge == host for edge in self.edges) else host.address

    def upstream(self, host: Host, edge: Host) -> str:
        """Where an edge reaches the components of a host."""
        return LOOPBACK if self.listen(host) == LOOPBACK and edge == host else host.address

    def links(self) -> list[Link]:
        """Who connects to whom, from host to host."""
        found = [Link(client, self.database, "PostgreSQL") for client in self.pooler_hosts if self.database]
        for service in self.services:
            ports = {port for component in service.components for port in service.ports(component)}
            for host in service.hosts:
                found += [Link(edge, host, service.name) for edge in self.edges if "http" in ports]
                found += [
                    Link(monitor, host, f"metrics of {service.name}") for monitor in self.monitors if "metrics" in ports
                ]
        return [link for link in found if link.client != link.server]


def ports(topology: Topology, host: Host) -> list[Port]:
    """Every port that something on the host listens on."""
    ssh = tuple(topology.inventory.variables.get("fleet_ssh_sources") or (ANY,))
    found = [Port(host.ssh_port, "ssh", "ansible_port", ssh, "ssh: administration")]
    if host in topology.edges:
        found.append(Port(80, "edge", "groups.edge", (ANY,), "edge: HTTP, redirects to HTTPS"))
        found.append(Port(443, "edge", "groups.edge", (ANY,), "edge: HTTPS and WebSocket"))
    if host == topology.database:
        clients = [client for client in topology.pooler_hosts if client != host]
        why = "postgres: poolers on " + ", ".join(client.name for client in clients)
        addresses = tuple(client.address for client in clients)
        found.append(Port(POSTGRES_PORT, "postgres", "groups.postgres", addresses, why))
        if clients:
            why = "rehearsals: a copy of a database, for " + ", ".join(client.name for client in clients)
            found.append(Port(REHEARSAL_PORT, "rehearsals", "groups.postgres", addresses, why))
    if topology.pooled(host):
        found.append(Port(POOLER_PORT, "pooler", "groups", (), ""))
    for service in topology.on(host):
        for component in service.components:
            for name, slots in service.ports(component).items():
                found += [
                    _component_port(topology, host, service, component, name, slot, slots[slot])
                    for slot in SLOTS
                    if slot in slots
                ]
    return found


def _component_port(
    topology: Topology, host: Host, service: Service, component: str, name: str, slot: str, number: int
) -> Port:
    readers = topology.monitors if name == "metrics" else topology.edges
    others = tuple(reader.address for reader in readers if reader != host)
    by = ", ".join(reader.name for reader in readers if reader != host)
    return Port(
        number,
        f"{service.name} {component} {name} ({slot})",
        f"{service.variable}.ports.{component}.{name}.{slot}",
        others,
        f"{service.name}-{component}@{slot}: {name} for {by}",
    )


def check(topology: Topology, findings: Findings) -> None:
    """No two users of one port on one host, and hosts can reach each other where they must."""
    _check_addresses(topology, findings)
    for host in topology.inventory.hosts.values():
        users: dict[int, Port] = {}
        for port in ports(topology, host):
            first = users.setdefault(port.number, port)
            if first is not port:
                findings.add(
                    port.variable,
                    f"port {port.number} of {host.name} has two users: {first.user} and {port.user}",
                    f"Give one of them another port, by {port.variable} or {first.variable}",
                )
    if any(service.contract.get("routes") for service in topology.services) and not topology.edges:
        findings.add(
            "groups.edge", "no host is in the group edge, but services have domains", "Put a host into the group edge"
        )
    if any(service.database for service in topology.services) and not topology.databases:
        findings.add(
            "groups.postgres",
            "no host is in the group postgres, but services need a database",
            "Put a host into the group postgres",
        )


def _check_addresses(topology: Topology, findings: Findings) -> None:
    """Firewall, pg_hba.conf and units let hosts in by address: it has to be one, and each host's own."""
    parsed: dict[str, ipaddress.IPv4Address | ipaddress.IPv6Address] = {}
    owners: dict[str, Host] = {}
    links = topology.links()
    for host, other, purpose in [
        *((link.client, link.server, link.purpose) for link in links),
        *((link.server, link.client, link.purpose) for link in links),
    ]:
        variable = f"hosts.{host.name}.fleet_address"
        remedy = f"Set fleet_address of {host.name} to the IP address at which the other hosts of the fleet see it"
        reason = f"{host.name} and {other.name} have to reach each other ({purpose})"
        try:
            address = ipaddress.ip_address(host.address)
        except ValueError:
            findings.add(variable, f"{host.address} is a name and no IP address, and {reason}", remedy)
            continue
        if address.is_loopback or address.is_unspecified:
            findings.add(variable, f"{host.address} is no address to reach a host at, and {reason}", remedy)
            continue
        parsed[host.name] = address
        owner = owners.setdefault(host.address, host)
        if owner != host:
            findings.add(variable, f"{host.address} is the address of {owner.name} already, and {reason}", remedy)
    mixed: dict[str, Link] = {}
    for link in links:
        kinds = {parsed[end.name].version for end in (link.client, link.server) if end.name in parsed}
        if len(kinds) > 1:
            mixed.setdefault(link.client.name, link)
    for name, link in mixed.items():
        findings.add(
            f"hosts.{name}.fleet_address",
            f"{link.client.address} is of another kind of IP than {link.server.address} of {link.server.name}, which "
            f"{name} has to reach ({link.purpose})",
            "Give both an address of the same kind",
        )
