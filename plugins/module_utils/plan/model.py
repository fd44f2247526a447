# GNU General Public License v3.0+ (see LICENSE)
"""What the plan is computed from: the inventory as plain data, with nothing of Ansible in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Data = dict[str, Any]
SLOTS = ("blue", "green")


def other_slot(slot: str) -> str:
    return SLOTS[1 - SLOTS.index(slot)]


@dataclass(frozen=True)
class Host:
    """A server in the inventory. `address` is how other hosts of the fleet reach it."""

    name: str
    address: str
    os: str = "debian-13"
    architecture: str = "amd64"
    ssh_port: int = 22
    # Items of the hardening that are switched, by name.
    hardening: Data = field(default_factory=dict)


@dataclass(frozen=True)
class Inventory:
    """All that the inventory says: hosts, groups, and the `fleet_*` variables by name.

    `live` is what the hosts say, where they have been asked: the slot that serves, by service and host.
    """

    hosts: dict[str, Host]
    groups: dict[str, list[str]]
    variables: Data = field(default_factory=dict)
    live: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def services(self) -> dict[str, Data]:
        """Entries by name; what is no mapping is a finding of the schema's, and none here."""
        given = self.variables.get("fleet_services")
        entries = given if isinstance(given, dict) else {}
        return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}

    def members(self, group: str) -> list[Host]:
        return [self.hosts[name] for name in self.groups.get(group, []) if name in self.hosts]


@dataclass(frozen=True)
class Instance:
    """A component of a service on a host."""

    service: Service
    component: str
    host: Host


@dataclass(frozen=True)
class Service:
    """A service with its contract for the version that the inventory asks for."""

    name: str
    version: str
    wanted: Data
    contract: Data
    hosts: tuple[Host, ...]
    # The slot that serves, by host, as the hosts have it.
    live: Mapping[str, str] = field(default_factory=dict)

    @property
    def variable(self) -> str:
        return f"fleet_services.{self.name}"

    @property
    def domains(self) -> list[str]:
        names = [self.wanted.get("domain"), *self.wanted.get("aliases", [])]
        return [str(name) for name in names if name]

    @property
    def components(self) -> dict[str, Data]:
        return dict(self.contract.get("components") or {})

    @property
    def database(self) -> Data | None:
        """The database it needs, with the inventory's own numbers; None where it needs none."""
        declared = self.contract.get("database")
        if not declared:
            return None
        return {
            "name": self.name.replace("-", "_"),
            "user": self.name.replace("-", "_"),
            "password": f"{self.name.upper().replace('-', '_')}_DATABASE_PASSWORD",
            "pooling": "session",
            "connections": 10,
            "attributes": ["LOGIN"],
            "extensions": [],
            **declared,
            **self.wanted.get("database", {}),
        }

    def slot_on(self, host: Host) -> str:
        """The slot that serves on a host: the inventory's where it names one, else the host's own, else the first."""
        return str(self.wanted.get("slot") or self.live.get(host.name) or SLOTS[0])

    def ports(self, component: str) -> dict[str, dict[str, int]]:
        """Ports of a component by name and slot, the inventory's over the definition's. What only the inventory has is a finding."""
        given = self.wanted.get("ports", {}).get(component, {})
        declared = self.components[component].get("ports", {})
        return {name: {**slots, **given.get(name, {})} for name, slots in declared.items()}
