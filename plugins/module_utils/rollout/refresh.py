# GNU General Public License v3.0+ (see LICENSE)
"""Services that do not find back to a database by themselves once it has restarted: the same version goes to the other slot, as an upgrade does."""

from __future__ import annotations

import dataclasses

from ..plan.model import Data, other_slot
from .fleet import (
    Fleet,
    Rollouts,
    Serving,
    entries_of,
    http_ports,
    limits_of,
    starting_slice,
    strategy_of,
)
from .schedule import refresh

RESTART = "restart"  # what a definition says of such a component


def refreshes(
    fleet: Fleet, serving: Serving, *, database_uptime: float | None, only: str = "", always: bool = False
) -> Rollouts:
    """Every service that PostgreSQL has restarted under, in seconds since it did; with `always`, all that could have lost it.

    A host of the database itself needs nothing: there its services start again with it.
    """
    found = Rollouts()
    home = fleet.plan()
    if home.findings:
        found.findings = home.findings
        return found
    services = fleet.inventory.services
    if only and only not in services:
        found.findings.add("service", f"{only!r} is no service of this fleet", f"Known are: {', '.join(services)}")
        return found
    for name in [only] if only else list(services):
        hosts = [
            host
            for host, own in home.hosts.items()
            if not own["postgres"]
            and any(entry["after_database_restart"] == RESTART for entry in entries_of(own, name))
            and name in serving[host]
            and (always or _older(serving[host][name].get("uptime"), database_uptime))
        ]
        if hosts:
            found.items.append(_refresh(fleet, serving, name, hosts))
    return found


def _older(service: float | None, database: float | None) -> bool:
    """What does not run loses nothing."""
    return service is not None and database is not None and service > database


def _refresh(fleet: Fleet, serving: Serving, name: str, hosts: list[str]) -> Data:
    # The version that runs, whatever the inventory wants by now: this is no upgrade.
    versions = {str(serving[host][name]["version"]) for host in hosts}
    wanted = {**fleet.inventory.services[name], **({"version": versions.pop()} if len(versions) == 1 else {})}
    variables = {**fleet.inventory.variables, "fleet_services": {**fleet.inventory.services, name: wanted}}
    before = fleet.plan(variables=variables)
    slots = {host: str(serving[host][name]["slot"]) for host in hosts}
    flipped = {**fleet.inventory.live.get(name, {}), **{host: other_slot(slot) for host, slot in slots.items()}}
    after = fleet.plan(variables=variables, live={**fleet.inventory.live, name: flipped})
    entries = [entry for host in hosts for entry in entries_of(before.hosts[host], name)]
    limits = limits_of(entries, wanted)
    strategy = strategy_of(entries, wanted)
    steps = refresh(strategy, hosts, limits)
    return {
        "service": name,
        "kind": "refresh",
        "strategy": strategy if strategy != "canary" else "blue_green",
        "hosts": hosts,
        "from": {host: {key: serving[host][name][key] for key in ("version", "slot")} for host in hosts},
        "to": {host: {"version": serving[host][name]["version"], "slot": flipped[host]} for host in hosts},
        "limits": dataclasses.asdict(limits),
        "rehearsal": {"host": None, "reason": ""},
        "copy": {"host": None, "reason": ""},
        "gates": [],
        "steps": [step.as_data() for step in steps],
        "before": before.hosts,
        "after": after.hosts,
        "present": {host: serving[host][name]["notes"] for host in hosts},
        "former": {host: serving[host][name]["notes"] for host in hosts},
        "leaving": {host: http_ports(before.hosts[host], name) for host in hosts},
        "starting": {host: starting_slice(after.hosts[host], name, slots[host]) for host in hosts},
    }
