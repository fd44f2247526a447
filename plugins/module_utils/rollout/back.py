# GNU General Public License v3.0+ (see LICENSE)
"""The way back to the release that hosts have kept in their idle slots, with the database as it is or with the copy from before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..plan.compute import Plan
from ..plan.findings import Findings
from ..plan.model import Data
from . import cut_off
from .cut_off import ROLLBACK
from .fleet import Fleet, Rollouts, Serving, database_of, entries_of, http_ports, limits_of, strategy_of
from .schedule import Limits, Step, back_from_rollback, rollback


def rollbacks(fleet: Fleet, serving: Serving, *, only: str, restore: str = "", accepted: str = "") -> Rollouts:
    """A service to the release that each of its hosts has kept in its idle slot; what the slot reads is there, and is not asked for.

    `restore` names the rollout whose copy of the database is put back. Without it, the release has to be known to start on the database as it is;
    or it is tried because `accepted` names the service.
    """
    found = Rollouts()
    fleet, serving = cut_off.as_before(fleet, serving, only)
    home = fleet.plan()
    hosts = [host for host, own in home.hosts.items() if entries_of(own, only)]
    if home.findings:
        found.findings = home.findings
    elif not hosts:
        known = ", ".join(fleet.inventory.services)
        found.findings.add(
            "service", f"{only!r} is no service of this fleet", f"Name one: -e service=NAME, of: {known}"
        )
    # After a refresh the idle slot has the version that serves, too.
    without = [host for host in hosts if not _kept(serving[host].get(only, {}))]
    if without:
        found.findings.add(
            f"fleet_services.{only}",
            f"{', '.join(without)} has kept no other release of {only}",
            "Set the version that it is to have in the inventory, and run upgrade.yml",
        )
    if found.findings:
        return found
    database = database_of(home, only)
    if restore and database is None:
        found.findings.add("restore", f"{only} has no database in this fleet", "Leave restore out")
    if not restore:
        cut_off.check(serving, only, hosts, found.findings)
    if database and not restore and accepted != only:
        _check_way_back(only, hosts, serving, found.findings)
    if found.findings:
        return found
    found.items.append(
        _rollout(
            fleet,
            home,
            serving,
            only,
            hosts,
            {**database, "restore": restore} if database and restore else {"host": None},
        )
    )
    return found


def restore_taken_back(
    fleet: Fleet, home: Plan, serving: Serving, name: str, hosts: Sequence[str], begun_as: str
) -> Data:
    """From wherever a rollback to the copy of the database was cut off, by its name in the ledger: to the slots that served before it, and their data."""
    database = database_of(home, name) or {"host": None}
    rollout = _rollout(fleet, home, serving, name, hosts, {**database, "cut_off": begun_as})
    # As if it had come as far as it can come without an end.
    begun = [
        Step(phase="unpack", hosts=(str(database["host"]),)),
        Step(phase="stop", hosts=tuple(hosts)),
        Step(phase="swap", hosts=(str(database["host"]),)),
        Step(phase="revive", hosts=tuple(hosts)),
        Step(phase="traffic", hosts=tuple(hosts)),
        Step(phase="adopt", hosts=tuple(hosts)),
    ]
    steps = [step.as_data() for step in back_from_rollback(begun, hosts, Limits(**rollout["limits"]))]
    return {**rollout, "strategy": "as before", "to": rollout["from"], "steps": steps}


def _rollout(fleet: Fleet, home: Plan, serving: Serving, name: str, hosts: Sequence[str], database: Data) -> Data:
    kept = {host: list(serving[host][name]["kept"]) for host in hosts}
    slots = {host: str(notes[0]["slot"]) for host, notes in kept.items()}
    entries = [entry for host in hosts for entry in entries_of(home.hosts[host], name)]
    limits = limits_of(entries, fleet.inventory.services[name])
    wanted = {**fleet.inventory.services[name], "version": str(kept[hosts[0]][0]["version"])}
    services = {**fleet.inventory.variables["fleet_services"], name: wanted}
    live = {**fleet.inventory.live, name: slots}
    former = fleet.plan(live=live, variables={**fleet.inventory.variables, "fleet_services": services})
    restored_on = [str(database["host"])] if database.get("restore") else []
    alone = strategy_of(entries, fleet.inventory.services[name]) == "restart"
    return {
        "service": name,
        "kind": ROLLBACK,
        "strategy": "blue_green",
        "hosts": hosts,
        "from": {host: {key: serving[host][name][key] for key in ("version", "slot")} for host in hosts},
        "to": {host: {"version": notes[0]["version"], "slot": slots[host]} for host, notes in kept.items()},
        "limits": dataclasses.asdict(limits),
        "copy": database,
        "steps": [step.as_data() for step in rollback(hosts, limits, restored_on=restored_on, alone=alone)],
        "before": (fleet.plan(live=live) if former.findings else former).hosts,
        "after": home.hosts,
        "present": {host: serving[host][name]["notes"] for host in hosts},
        "former": kept,
        "leaving": {host: http_ports(home.hosts[host], name) for host in hosts},
        "starting": {},
    }


def _check_way_back(name: str, hosts: Sequence[str], serving: Serving, findings: Findings) -> None:
    """Whether the kept release is known to start on the database that the present one has left."""
    for host in hosts:
        entry = serving[host][name]
        present, kept = str(entry["version"]), str(entry["kept"][0]["version"])
        if not any(way["present"] == present and way["former"] == kept for way in entry.get("ways_back", [])):
            findings.add(
                f"fleet_services.{name}",
                f"nobody has seen {kept} start on the database that {present} has left on {host}",
                f"Restore the copy from before the upgrade (-e restore=ID; status.yml -e history=true has the ID), or try it all the same: "
                f"-e no_way_back={name}. What does not start gets no traffic",
            )
            return


def _kept(entry: Data) -> bool:
    """Whether a host has another release in its idle slot."""
    return any(note["version"] != entry["version"] for note in entry.get("kept", []))
