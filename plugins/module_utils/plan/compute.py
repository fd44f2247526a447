# GNU General Public License v3.0+ (see LICENSE)
"""The plan as a whole: from the inventory and the definitions to every host's slice, or to all that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from . import budget, certificates, firewall, gates, hardening, network, overrides, webhook
from .definitions import Definitions
from .detour import detour
from .distributions import CONTRIB, DISTRIBUTIONS
from .findings import Finding, Findings
from .model import Data, Inventory
from .network import Topology
from .schema import accepted
from .services import resolve
from .slices import slice_of


@dataclass
class Plan:
    """Slices by host, the connection budget, notes for the operator; and the findings, with which nothing of it is to be used."""

    hosts: Data = field(default_factory=dict)
    budget: Data = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    detour: Data = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)

    def as_fact(self) -> Data:
        return {"hosts": self.hosts, "budget": self.budget, "notes": self.notes, "detour": self.detour}


def compute(
    inventory: Inventory,
    definitions: Definitions,
    inventory_schema: Data,
    undefined: Iterable[Finding] = (),
    *,
    rotate: str | None = None,
) -> Plan:
    """Never raises for what a user wrote: that becomes findings, all of them at once.

    `undefined` are findings from before: variables that could not be filled in, and so are missing from the inventory.
    `rotate` is a secret as `service.NAME`: the plan then has the detour by which it changes.
    """
    plan = Plan(findings=Findings(list(undefined)))
    findings = plan.findings
    inventory = accepted(inventory_schema, inventory, findings)
    if not inventory.services and not any(finding.variable.startswith("fleet_services") for finding in findings.items):
        findings.add("fleet_services", "names no service", "Name at least one, as docs/a-real-fleet.md shows")
    for host in inventory.hosts.values():
        if host.os not in DISTRIBUTIONS:
            findings.add(
                f"hosts.{host.name}.fleet_os",
                f"{host.os} is not supported",
                f"Choose one of: {', '.join(DISTRIBUTIONS)}",
            )
    services = resolve(inventory, definitions, findings)
    topology = Topology(inventory, services)
    network.check(topology, findings)
    firewall.check(topology, findings)
    hardening.check(inventory, findings)
    webhook.check(inventory, findings)
    certificates.check(topology, findings)
    budget.check(inventory, services, findings)
    gates.check(services, findings)
    _check_extensions(topology, findings)
    if findings:
        return plan
    plan.hosts = {host.name: slice_of(topology, host) for host in inventory.hosts.values()}
    plan.budget = budget.summary(inventory, services)
    if rotate is not None:
        plan.detour = detour(topology, rotate, plan.hosts, findings)
    plan.notes += [note for service in services for note in overrides.near_misses(service)]
    if len(topology.databases) > 1:
        others = ", ".join(host.name for host in topology.databases[1:])
        plan.notes.append(
            f"PostgreSQL runs on {topology.databases[0].name} alone: a replica on {others} is not built by this version"
        )
    return plan


def _check_extensions(topology: Topology, findings: Findings) -> None:
    host = topology.database
    if host is None or host.os not in DISTRIBUTIONS:
        return
    distribution = DISTRIBUTIONS[host.os]
    for service in topology.services:
        for extension in (service.database or {}).get("extensions", []):
            if extension in CONTRIB or distribution.extension_packages.get(extension):
                continue
            having = [entry.name for entry in DISTRIBUTIONS.values() if entry.extension_packages.get(extension)]
            findings.add(
                f"{service.variable}.version",
                f"{service.name} {service.version} needs the extension {extension}, and {distribution.name} ({host.name}) has no package for it",
                f"Use a database host with {' or '.join(having) or 'a distribution that has it'}: put it into the group postgres",
            )
