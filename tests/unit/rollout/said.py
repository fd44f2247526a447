"""Fleets and what their hosts say that they run: what tests of rollouts of every kind begin with."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import Definitions
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Inventory
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.back import rollbacks
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.fleet import Fleet, Rollouts
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rollout import rollouts

from ..plan.fixtures import SERVICES


def note(slot: str, version: str, service: str = "fluxbase") -> dict[str, Any]:
    return {
        "service": service,
        "component": "server",
        "unit": f"{service}-server",
        "version": version,
        "slot": slot,
        "probe": {"url": "http://127.0.0.1:8081/health"},
    }


def serving(version: str, **slots: str) -> dict[str, dict[str, Any]]:
    return {
        host: {"fluxbase": {"slot": slot, "version": version, "notes": [note(slot, version)], "kept": []}}
        for host, slot in slots.items()
    }


def unfinished(version: str, strategy: str = "blue_green", former: str = "2026.3.6") -> list[dict[str, str]]:
    return [{"id": "x", "version": version, "former": former, "strategy": strategy}]


def fleet_of(inventory: Inventory, says: dict[str, Any]) -> tuple[Fleet, dict[str, Any]]:
    """With what its hosts say."""
    hosts = {name: says.get(name, {}) for name in inventory.hosts}
    live: dict[str, dict[str, str]] = {}
    for host, services in hosts.items():
        for name, entry in services.items():
            live.setdefault(name, {})[host] = entry["slot"]
    schema = json.loads((SERVICES / "schema" / "inventory.schema.json").read_text())
    definitions = Definitions([SERVICES], SERVICES / "schema" / "definition.schema.json")
    asked = Inventory(inventory.hosts, inventory.groups, inventory.variables, live)
    return Fleet(asked, definitions, schema), hosts


def found(inventory: Inventory, says: dict[str, Any], only: str = "", **back: str) -> Rollouts:
    """The way back with `back`."""
    fleet, hosts = fleet_of(inventory, says)
    return rollbacks(fleet, hosts, only=only, **back) if back else rollouts(fleet, hosts, only=only)


def one(inventory: Inventory, says: dict[str, Any]) -> dict[str, Any]:
    made = found(inventory, says)
    assert made.findings.items == []
    (rollout,) = made.items
    return dict(rollout)
