# GNU General Public License v3.0+ (see LICENSE)
"""The fleet without a service, and what that service may have left on hosts, whether the inventory still has it or not.

What it may have left follows from its definition, all versions of it: the inventory may have forgotten it, and the hosts have notes of
what runs only. So the definition has to be there; nothing is ever guessed from a name alone, which could be one of Debian's own folders.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from .certificates import TLS
from .compute import Plan, compute
from .definitions import MERGED, Definitions, merge
from .detour import BRIDGE
from .findings import Finding, Findings
from .model import Data, Inventory, Service
from .network import Topology
from .schema import accepted
from .slices import slice_of

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass
class Removal:
    """`plan` is the fleet's without the service, `footprint` what the service alone may have left."""

    plan: Plan = field(default_factory=Plan)
    footprint: Data = field(default_factory=dict)


def removal(
    inventory: Inventory,
    definitions: Definitions,
    inventory_schema: Data,
    undefined: Sequence[Finding],
    *,
    service: str,
    delete_data: str,
) -> Removal:
    """Findings are in the plan, as everywhere; with any of them no host is to be touched."""
    result = Removal()
    findings = result.plan.findings
    _check(inventory, definitions, service, delete_data, findings)
    definition = None if findings else definitions.load(service, findings)
    if definition is None:
        return result
    # With all that is wrong with the others: a fleet that cannot be read is not one without services.
    given = inventory.variables.get("fleet_services") or {}
    rest = {name: wanted for name, wanted in given.items() if name != service} if isinstance(given, dict) else given
    remaining = dataclasses.replace(inventory, variables={**inventory.variables, "fleet_services": rest})
    own = f"fleet_services.{service}"
    others = [
        finding for finding in undefined if finding.variable != own and not finding.variable.startswith(f"{own}.")
    ]
    result.plan = (
        compute(remaining, definitions, inventory_schema, others)
        if rest
        else _empty(remaining, inventory_schema, others)
    )
    if not result.plan.findings:
        wanted = accepted(inventory_schema, inventory, Findings()).services.get(service, {})
        found = _footprint(service, definition, wanted)
        result.footprint = {
            **_without_shared(found, result.plan.hosts),
            "service": service,
            "in_inventory": service in inventory.services,
            "delete_data": bool(delete_data),
        }
    return result


def _check(inventory: Inventory, definitions: Definitions, service: str, delete_data: str, findings: Findings) -> None:
    if not NAME.fullmatch(service):
        findings.add("service", f"{service!r} is no name of a service", "Name one: -e service=NAME")
    elif service not in definitions.files:
        known = sorted({*inventory.services, *definitions.names()})
        findings.add(
            "service",
            f"there is no definition of a service {service}, and it says what the service has left on hosts",
            f"Known are: {', '.join(known)}. Put services/{service}.yml back beside the inventory for this run",
        )
    if delete_data and delete_data != service:
        findings.add(
            "delete_data",
            f"is {delete_data!r}, and the service is {service!r}",
            f"Repeat the service's name exactly to have its data deleted, -e delete_data={service}; leave it out to keep them",
        )


def _empty(inventory: Inventory, schema: Data, findings: Iterable[Finding]) -> Plan:
    """The plan of a fleet whose last service goes: `compute` takes that for a slip of the pen."""
    plan = Plan(findings=Findings(list(findings)))
    inventory = accepted(schema, inventory, plan.findings)
    if not plan.findings:
        topology = Topology(inventory, [])
        plan.hosts = {host.name: slice_of(topology, host) for host in inventory.hosts.values()}
    return plan


def _footprint(name: str, definition: Data, wanted: Data) -> Data:
    """What any version of the service makes, with the names that the inventory gives."""
    base = {key: definition[key] for key in MERGED if key in definition}
    contracts = [merge(base, {key: entry[key] for key in MERGED if key in entry}) for entry in definition["contracts"]]
    services = [Service(name, "", wanted, contract, ()) for contract in contracts]
    components = {(key, item.get("user", name)) for service in services for key, item in service.components.items()}
    state = {
        folder["path"]
        for service in services
        for item in service.components.values()
        for folder in item.get("state", [])
    }
    needs = [service.database for service in services if service.database]
    return {
        "components": sorted({component for component, _user in components}),
        "users": sorted({user for _component, user in components}),
        "state": _outermost({f"/var/lib/{name}", *state}),
        "certificates": sorted({f"{TLS}/{domain}" for domain in services[0].domains[:1]}),
        "databases": sorted({need["name"] for need in needs}),
        "roles": sorted({role for need in needs for role in (need["user"], f"{need['user']}{BRIDGE}")}),
    }


def _without_shared(found: Data, hosts: Data) -> Data:
    """What no remaining service uses as well."""
    components = [component for own in hosts.values() for component in own["components"]]
    postgres = [own["postgres"] for own in hosts.values() if own["postgres"]]
    folders = {folder["path"] for component in components for folder in component["state"]}
    folders |= {f"/var/lib/{component['service']}" for component in components}
    used = {
        "users": {component["user"] for component in components},
        "certificates": {entry["directory"] for own in hosts.values() for entry in own["certificates"]},
        "databases": {database["name"] for cluster in postgres for database in cluster["databases"]},
        "roles": {role["name"] for cluster in postgres for role in cluster["roles"]},
    }
    kept = {key: [item for item in found[key] if item not in names] for key, names in used.items()}
    return {**found, **kept, "state": [path for path in found["state"] if not _related(path, folders)]}


def _outermost(paths: Collection[str]) -> list[str]:
    return sorted(path for path in paths if not any(path != other and _within(path, other) for other in paths))


def _related(path: str, others: Collection[str]) -> bool:
    return any(_within(path, other) or _within(other, path) for other in others)


def _within(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)
