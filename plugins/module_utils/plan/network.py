# GNU General Public License v3.0+ (see LICENSE)
"""Who listens where, and who may reach it: the users of every port of every host, and the firewall that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from .findings import Findings
from .model import SLOTS, Data, Host, Inventory, Service

POSTGRES_PORT = 5432
POOLER_PORT = 6432
ANY = "any"


@dataclass(frozen=True)
class Port:
    """A port of a host: its user, and the sources that may reach it (none: loopback only)."""

    number: int
    user: str
    variable: str
    sources: tuple[str, ...] = ()
    why: str = ""


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
        return "127.0.0.1" if all(edge == host for edge in self.edges) else host.address

    def upstream(self, host: Host, edge: Host) -> str:
        """Where an edge reaches the components of a host."""
        return "127.0.0.1" if self.listen(host) == "127.0.0.1" and edge == host else host.address


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
        found.append(
            Port(POSTGRES_PORT, "postgres", "groups.postgres", tuple(client.address for client in clients), why)
        )
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
    """No two users of one port on one host, and an address where hosts must reach each other."""
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


def inbound(topology: Topology, host: Host) -> list[Data]:
    """Firewall rules: what may come in. A port without sources has no rule."""
    return [
        {"port": port.number, "protocol": "tcp", "sources": list(port.sources), "why": port.why}
        for port in ports(topology, host)
        if port.sources
    ]
