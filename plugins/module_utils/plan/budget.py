# GNU General Public License v3.0+ (see LICENSE)
"""The connection budget: every pool of every instance against PostgreSQL's `max_connections`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .findings import Findings
from .model import Data, Inventory, Service

DEFAULT_MAX_CONNECTIONS = 100  # PostgreSQL's own
RESERVED = 13  # 3 that PostgreSQL keeps for superusers, 10 for backups, monitoring and people


@dataclass(frozen=True)
class Share:
    """What one pool may take: both slots of a rollout run side by side, so each host needs twice an instance's share."""

    service: str
    host: str
    per_instance: int
    slots: int = 2

    @property
    def size(self) -> int:
        return self.per_instance * self.slots


def shares(services: list[Service]) -> list[Share]:
    return [
        Share(service.name, host.name, service.database["connections"] + service.database.get("beside", 0))
        for service in services
        if service.database
        for host in service.hosts
    ]


def max_connections(inventory: Inventory) -> int:
    return int((inventory.variables.get("fleet_postgres") or {}).get("max_connections", DEFAULT_MAX_CONNECTIONS))


def summary(inventory: Inventory, services: list[Service]) -> Data:
    """The budget as a table for people."""
    parts = shares(services)
    used = sum(part.size for part in parts)
    return {
        "max_connections": max_connections(inventory),
        "reserved": RESERVED,
        "pools": [{**asdict(part), "size": part.size} for part in parts],
        "used": used,
        "free": max_connections(inventory) - RESERVED - used,
    }


def check(inventory: Inventory, services: list[Service], findings: Findings) -> None:
    budget = summary(inventory, services)
    if budget["free"] < 0:
        needed = budget["used"] + budget["reserved"]
        pools = ", ".join(f"{part['service']} on {part['host']} {part['size']}" for part in budget["pools"])
        findings.add(
            "fleet_postgres.max_connections",
            f"the pools want {budget['used']} connections ({pools}) and {budget['reserved']} are reserved, but it is {budget['max_connections']}",
            f"Set it to at least {needed}, or lower database.connections of a service",
        )
