# GNU General Public License v3.0+ (see LICENSE)
"""A rollout: from the versions that hosts say they run to the one that the inventory asks for, as steps and as slices of the plan for them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from datetime import datetime

from ..packages import is_of
from ..plan.compute import Plan
from ..plan.findings import Findings
from ..plan.model import Data, other_slot
from ..plan.network import REHEARSAL_PORT
from . import cut_off, own_gates
from .back import restore_taken_back
from .cut_off import ROLLBACK
from .fleet import (
    Fleet,
    Rollouts,
    Serving,
    database_of,
    entries_of,
    http_ports,
    limits_of,
    starting_slice,
    strategy_of,
)
from .schedule import STRATEGIES, Step, home_again, schedule, settled, way_back


def rollouts(fleet: Fleet, serving: Serving, *, only: str = "") -> Rollouts:
    """Every service whose hosts run another version than the inventory's; with `only`, that one."""
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
        hosts = [host for host, own in home.hosts.items() if entries_of(own, name)]
        behind = _behind(home, serving, name, hosts)
        unfinished = [host for host in hosts if serving[host].get(name, {}).get("unfinished")]
        if behind and cut_off.is_between(serving, name, hosts):
            former_fleet, former = cut_off.as_before(fleet, serving, name)
            if not _behind(home, former, name, hosts):
                found.items.append(_taken_back(former_fleet, former_fleet.plan(), former, name, unfinished))
                continue
        if behind:
            rollout = _rollout(fleet, home, serving, name, behind, found.findings)
            found.items += [rollout] if rollout else []
        elif unfinished:
            found.items.append(_taken_back(fleet, home, serving, name, unfinished))
    return found


def _behind(home: Plan, serving: Serving, name: str, hosts: Sequence[str]) -> list[str]:
    """Hosts that run another version than the inventory's."""
    return [host for host in hosts if not _runs(serving[host].get(name, {}), entries_of(home.hosts[host], name)[0])]


def _rollout(
    fleet: Fleet, home: Plan, serving: Serving, name: str, hosts: Sequence[str], findings: Findings
) -> Data | None:
    wanted = fleet.inventory.services[name]
    entries = [entry for host in hosts for entry in entries_of(home.hosts[host], name)]
    strategy = strategy_of(entries, wanted)
    variable = f"fleet_services.{name}"
    _check(variable, wanted, strategy, entries, hosts, serving, name, findings)
    cut_off.check(serving, name, hosts, findings)
    if findings:
        return None
    slots = {host: str(serving[host][name]["slot"]) for host in hosts}
    flipped = {**fleet.inventory.live.get(name, {}), **{host: other_slot(slot) for host, slot in slots.items()}}
    after = fleet.plan(live={**fleet.inventory.live, name: flipped})
    limits = limits_of(entries, wanted)
    rehearsal = _rehearsal(wanted, after, name, hosts, serving)
    kept = _safety_copy(wanted, after, name)
    gates = own_gates.complete(wanted)
    involved = [host for host, each in home.hosts.items() if host in hosts or each["postgres"]]
    return {
        "service": name,
        "kind": "upgrade",
        "strategy": strategy,
        # YAML takes off for false.
        "sticky": wanted.get("rollout", {}).get("sticky") or "off",
        "hosts": list(hosts),
        "from": {host: {key: serving[host][name][key] for key in ("version", "slot")} for host in hosts},
        "to": {host: {"version": _version(after, host, name), "slot": flipped[host]} for host in hosts},
        "limits": dataclasses.asdict(limits),
        "rehearsal": rehearsal,
        "copy": kept,
        "gates": gates,
        "site": f"https://{wanted['domain']}" if wanted.get("domain") else "",
        "steps": [
            step.as_data()
            for step in [
                *(home_again(hosts, limits) if _other_cut_off(serving, name, hosts, entries) else []),
                *schedule(
                    strategy,
                    hosts,
                    involved,
                    limits,
                    edges=[host for host, own in after.hosts.items() if own["edge"]],
                    rehearsed_on=[rehearsal["host"]] if rehearsal["host"] else [],
                    copied_on=[kept["host"]] if kept["host"] else [],
                    gates=own_gates.own_gates(gates),
                ),
            ]
        ],
        "before": _before(fleet, name, home, serving, hosts).hosts,
        "after": after.hosts,
        "present": {host: serving[host][name]["notes"] for host in hosts},
        "former": {host: serving[host][name]["notes"] for host in hosts},
        "leaving": {host: http_ports(home.hosts[host], name) for host in hosts},
        "starting": {host: starting_slice(after.hosts[host], name, slots[host]) for host in hosts},
    }


def _other_cut_off(serving: Serving, name: str, hosts: Sequence[str], entries: Sequence[Data]) -> bool:
    """Whether the slot that is to get this version may have traffic, with another one."""
    wanted = {str(entry["version"]) for entry in entries}
    return any(each["version"] not in wanted for host in hosts for each in serving[host][name].get("unfinished", []))


def ledger_entries(rollout: Data, serving: Serving, moment: datetime) -> Data:
    """Under which name it is recorded: that of one that was cut off on its way to the same version, or its own. `superseded` are others without an end."""
    version = rollout["to"][rollout["hosts"][0]]["version"]
    open_ones = {
        entry["id"]: entry["version"]
        for host in rollout["hosts"]
        for entry in serving[host][rollout["service"]].get("unfinished", [])
    }
    own = [name for name, to in open_ones.items() if to == version]
    name = own[-1] if own else f"{moment:%Y%m%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9._+-]', '-', version)}"
    return {"id": name, "superseded": [each for each in open_ones if each != name]}


def _taken_back(fleet: Fleet, home: Plan, serving: Serving, name: str, hosts: Sequence[str]) -> Data:
    """A rollout that was cut off, to a version that is not wanted any more: everything as it was before it.

    Or one to the version that serves by now, which had but to settle: what the other slot has kept stays. So it does where a rollback was cut off.
    """
    wanted = fleet.inventory.services[name]
    entries = [entry for host in hosts for entry in entries_of(home.hosts[host], name)]
    limits = limits_of(entries, wanted)
    flipped = {host: other_slot(str(serving[host][name]["slot"])) for host in hosts}
    after = fleet.plan(live={**fleet.inventory.live, name: {**fleet.inventory.live.get(name, {}), **flipped}})
    # As if it had come as far as it can come without being done: whether the slot that served still runs is not known.
    alone = strategy_of(entries, wanted) == "restart"
    phases = ("stop", "start", "traffic") if alone else ("start", "traffic", "finish")
    begun = [Step(phase=phase, hosts=tuple(hosts)) for phase in phases]
    open_ones = [(host, each) for host in hosts for each in serving[host][name]["unfinished"]]
    restores = [str(each["id"]) for host, each in open_ones if cut_off.is_open_restore(each, serving[host][name])]
    if restores:
        return restore_taken_back(fleet, home, serving, name, hosts, restores[-1])
    settles = all(each["version"] == str(serving[host][name]["version"]) for host, each in open_ones)
    steps = [settled(hosts, 0)] if settles else way_back(begun, hosts, limits)
    if all(each.get("strategy") == ROLLBACK for _host, each in open_ones):
        steps = [step for step in steps if step.phase != "discard"]
    current = {host: {key: serving[host][name][key] for key in ("version", "slot")} for host in hosts}
    return {
        "service": name,
        "kind": "upgrade",
        "strategy": "as before",
        "hosts": list(hosts),
        "from": current,
        "to": current,
        "limits": dataclasses.asdict(limits),
        "rehearsal": {"host": None, "reason": ""},
        "steps": [step.as_data() for step in steps],
        "before": home.hosts,
        "after": after.hosts,
        "present": {host: serving[host][name]["notes"] for host in hosts},
        "former": {host: serving[host][name]["notes"] for host in hosts},
        "leaving": {},
        "starting": {host: starting_slice(after.hosts[host], name, str(serving[host][name]["slot"])) for host in hosts},
    }


def _check(
    variable: str,
    wanted: Data,
    strategy: str,
    entries: Sequence[Data],
    hosts: Sequence[str],
    serving: Serving,
    name: str,
    findings: Findings,
) -> None:
    allowed = [each for each in STRATEGIES if all(each in entry["strategies"] for entry in entries)]
    if strategy not in allowed:
        findings.add(
            f"{variable}.rollout.strategy", f"{strategy} cannot be used", f"Choose one of: {', '.join(allowed)}"
        )
    if "slot" in wanted:
        findings.add(
            f"{variable}.slot", "names the slot, which a rollout changes", "Take it out: each host knows its own"
        )
    new = [host for host in hosts if name not in serving[host]]
    if new:
        findings.add(
            f"{variable}.hosts",
            f"{', '.join(new)} does not run {name} yet, so there is nothing to upgrade",
            "Run site.yml first",
        )


def _before(fleet: Fleet, name: str, home: Plan, serving: Serving, hosts: Sequence[str]) -> Plan:
    """The plan with the version that runs, for the edges' way back; where the inventory no longer fits that one, with the new one in the old slots."""
    versions = {str(serving[host][name]["version"]) for host in hosts}
    if len(versions) > 1:
        return home
    wanted = {**fleet.inventory.services[name], "version": versions.pop()}
    services = {**fleet.inventory.services, name: wanted}
    former = fleet.plan(variables={**fleet.inventory.variables, "fleet_services": services})
    return home if former.findings else former


def _rehearsal(wanted: Data, after: Plan, name: str, hosts: Sequence[str], serving: Serving) -> Data:
    """Arguments of the module `rehearsal` and the host that it runs on; or the reason why there is none."""
    copy = wanted.get("rollout", {}).get("rehearsal", "auto") or "off"  # YAML takes off for false
    homes = {host: own["postgres"]["version"] for host, own in after.hosts.items() if own["postgres"]}
    pools = [pool for host in hosts for pool in (after.hosts[host]["pooler"] or {"pools": []})["pools"]]
    own = [pool for pool in pools if pool["secret"]["service"] == name]
    # Where both are on one host, nothing has to go over the network.
    host = next((host for host in hosts if host in homes), hosts[0])
    home = host if host in homes else next(iter(homes), None)
    reason = ""
    if not own:
        reason = f"{name} has no database"
    elif copy == "off":
        reason = f"fleet_services.{name}.rollout.rehearsal is off"
    if reason or home is None:
        return {"host": None, "reason": reason}
    notes = {note["component"]: note for note in serving[host][name]["notes"]}
    return {
        "host": host,
        "home": home,
        "reason": "",
        "copy": copy,
        "database": own[0]["database"],
        "version": homes[home],
        "port": (after.hosts[host]["pooler"] or {})["port"],
        "copy_port": REHEARSAL_PORT,
        **_wanted_of_database(after.hosts[home]["postgres"], own[0]["database"]),
        "parts": [
            {
                "name": entry["component"],
                "new": f"{entry['unit']}@{entry['slot']}.service",
                "old": f"{entry['unit']}@{notes[entry['component']]['slot']}.service",
                "new_probe": entry["probe"],
                "old_probe": notes[entry["component"]]["probe"],
                "state": [folder["path"] for folder in entry["state"]],
            }
            for entry in entries_of(after.hosts[host], name)
            if entry["component"] in notes
        ],
    }


def _safety_copy(wanted: Data, after: Plan, name: str) -> Data:
    """Where the database is copied before anything may migrate it; or the reason why it is not."""
    database = database_of(after, name)
    if database is None:
        return {"host": None, "reason": ""}
    if wanted.get("rollout", {}).get("safety_copy", True) is False:
        return {"host": None, "reason": f"fleet_services.{name}.rollout.safety_copy is off"}
    return {**database, "reason": ""}


def _wanted_of_database(postgres: Data, name: str) -> Data:
    """What the new version needs of its database, and the real one gets once the rehearsal has gone well."""
    database = next(each for each in postgres["databases"] if each["name"] == name)
    attributes = {each["name"]: each["attributes"] for each in postgres["roles"]}
    return {"attributes": {database["owner"]: attributes[database["owner"]]}, "extensions": database["extensions"]}


def _runs(serving: Data, entry: Data) -> bool:
    """Whether a host runs the version that is wanted; of a package any revision of Debian's, or any version at all."""
    version = str(serving.get("version", ""))
    if entry["release"].get("package"):
        wanted = str(entry["release"]["version"])
        return bool(version) and (wanted == "distribution" or is_of(version, wanted))
    return version == str(entry["version"])


def _version(plan: Plan, host: str, name: str) -> str:
    return str(entries_of(plan.hosts[host], name)[0]["version"])
