# GNU General Public License v3.0+ (see LICENSE)
"""What rollouts of every kind are computed from: the plans of a fleet, and what its hosts say that they run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..plan.compute import Plan, compute
from ..plan.definitions import Definitions
from ..plan.findings import Finding, Findings
from ..plan.model import Data, Inventory
from .schedule import STRATEGIES, Limits

# By host and service: slot, version, notes and kept of selfhost.fleet.serving_facts.
Serving = Mapping[str, Mapping[str, Data]]


@dataclass
class Rollouts:
    """One for each service whose version changes; with findings, none of them is to be carried out."""

    items: list[Data] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class Fleet:
    """What all plans of a run are computed from."""

    inventory: Inventory
    definitions: Definitions
    schema: Data
    undefined: Sequence[Finding] = ()

    def plan(self, *, variables: Data | None = None, live: Mapping[str, Mapping[str, str]] | None = None) -> Plan:
        """With other variables, or other slots that serve, by service and host."""
        given = self.inventory
        inventory = Inventory(
            hosts=given.hosts,
            groups=given.groups,
            variables=given.variables if variables is None else variables,
            live=given.live if live is None else live,
        )
        return compute(inventory, self.definitions, self.schema, self.undefined)


def limits_of(entries: Sequence[Data], wanted: Data) -> Limits:
    own = wanted.get("rollout", {})
    wishes = ("interval", "timeout", "successes", "failures", "soak", "drain", "shares", "observe", "canary")
    return Limits(
        start=max(entry["probe"]["start_timeout"] for entry in entries),
        stop=max(entry["stop_timeout"] for entry in entries) + 30,
        **{key: own[key] for key in wishes if key in own},
    )


def strategy_of(entries: Sequence[Data], wanted: Data) -> str:
    """The inventory's, or the first one that all components of the service know."""
    default = next(each for each in STRATEGIES if all(each in entry["strategies"] for entry in entries))
    return str(wanted.get("rollout", {}).get("strategy") or default)


def starting_slice(own: Data, name: str, serving: str) -> Data:
    """A slice in which nothing but the new slot of the service runs: the one that serves is not touched."""
    changed = copy.deepcopy(own)
    changed["standins"] = [{**entry, "serving": serving} for entry in entries_of(own, name)]
    changed["components"] = []
    return changed


def database_of(plan: Plan, name: str) -> Data | None:
    """The database of a service, and the host that has it; None where it has none in this fleet."""
    pools = [pool for own in plan.hosts.values() for pool in (own["pooler"] or {"pools": []})["pools"]]
    databases = [pool["database"] for pool in pools if pool["secret"]["service"] == name]
    homes = [host for host, own in plan.hosts.items() if own["postgres"]]
    return {"host": homes[0], "database": databases[0]} if databases and homes else None


def http_ports(own: Data, name: str) -> list[int]:
    return sorted(entry["ports"]["http"] for entry in entries_of(own, name) if "http" in entry["ports"])


def entries_of(own: Data, name: str) -> list[Data]:
    return [entry for entry in own["components"] if entry["service"] == name]
