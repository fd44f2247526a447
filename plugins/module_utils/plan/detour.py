# GNU General Public License v3.0+ (see LICENSE)
"""A detour: for a while the other slot of a service, its stand-in, serves in the place of the one that the plan runs.

What a service reads at its start only (an environment, a secret) changes without an outage like this: the stand-in starts
with the new, takes the traffic, the slot at home starts again, takes it back. A detour is the plan's own slices with the
stand-ins beside the components, so the roles carry it out as they do everything. See docs/decisions/0003-rotation.md.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from .components import component
from .findings import Findings
from .model import SLOTS, Data, Host, Service, other_slot
from .network import Topology
from .secrets import rules_of
from .sets import slot_set
from .slices import site

NEXT = "__NEXT"  # after a secret's name: its value to be
BRIDGE = "_rotation"  # after a database role's name: the role that stands in for it
LONGEST_NAME = 63  # bytes; PostgreSQL cuts off the rest


def detour(topology: Topology, wanted: str, home: Data, findings: Findings) -> Data:
    """The slices by host while `wanted` (`service.SECRET`) changes, and what a playbook has to know beside them."""
    name, _dot, secret = wanted.partition(".")
    service = next((each for each in topology.services if each.name == name), None)
    if service is None or secret not in rules_of(service):
        known = [f"{each.name}.{rule}" for each in topology.services for rule in rules_of(each)]
        findings.add("secret", f"{wanted} is no secret of this fleet", f"Known are: {', '.join(known)}")
        return {}
    bridge = _bridge(service) if service.database and service.database["password"] == secret else None
    standin = _standin(service, bridge)
    _check(service, secret, bridge, findings)
    if findings:
        return {}
    hosts = {host.name: _slice(topology, host, service, standin, secret, home[host.name]) for host in _hosts(topology)}
    return {
        "service": name,
        "bridge": bridge,
        "hosts": hosts,
        "drain": {host.name: _drain(host, service, standin) for host in service.hosts},
        "standin_sets": sorted({slot_set(entry) for own in hosts.values() for entry in own["standins"]}),
    }


def _hosts(topology: Topology) -> list[Host]:
    return list(topology.inventory.hosts.values())


def _bridge(service: Service) -> str:
    return f"{(service.database or {})['user']}{BRIDGE}"


def _standin(service: Service, bridge: str | None) -> Service:
    """The service as it is in its other slots, with the bridge's name for its own where there is one."""
    wanted = {key: value for key, value in service.wanted.items() if key != "slot"}
    if bridge:
        wanted["database"] = {**wanted.get("database", {}), "user": bridge}
    return dataclasses.replace(
        service, wanted=wanted, live={host.name: other_slot(service.slot_on(host)) for host in service.hosts}
    )


def _check(service: Service, secret: str, bridge: str | None, findings: Findings) -> None:
    variable = f"{service.variable}.secrets.{secret}"
    reason = rules_of(service)[secret].get("no_rotation")
    if reason:
        findings.add(variable, f"cannot be rotated: {reason}", "See docs/secrets.md")
    if bridge and len(bridge.encode()) > LONGEST_NAME:
        findings.add(variable, f"the role {bridge}, which stands in, has too long a name", "Shorten database.user")
    for name in service.components:
        for port, slots in service.ports(name).items():
            if set(slots) != set(SLOTS):
                findings.add(
                    f"{service.variable}.ports.{name}.{port}",
                    "is not there for both slots, which run side by side during a rotation",
                    f"Name a port for {' and '.join(SLOTS)}",
                )


def _slice(topology: Topology, host: Host, service: Service, standin: Service, secret: str, home: Data) -> Data:
    changed = copy.deepcopy(home)
    if host in service.hosts:
        entries = [component(topology, standin, name, host) for name in service.components]
        changed["standins"] = [{**_with_next(entry, secret), "serving": service.slot_on(host)} for entry in entries]
    if changed["edge"]:
        changed["edge"]["sites"] = [
            site(topology, standin, host) if entry["name"] == service.name else entry
            for entry in changed["edge"]["sites"]
        ]
    if standin.database and service.database and standin.database["user"] != service.database["user"]:
        _let_in(changed, service.database, standin.database["user"])
    return changed


def _with_next(entry: Data, secret: str) -> Data:
    """With the value to be, wherever it has the secret."""
    config = entry["config"]
    return {
        **entry,
        "secrets": _next(entry["secrets"], secret),
        "config": config and {**config, "content": _next(config["content"], secret)},
    }


def _next(node: Any, secret: str) -> Any:
    if isinstance(node, dict):
        return {key: _next(value, secret) for key, value in node.items()}
    if isinstance(node, list):
        return [_next(value, secret) for value in node]
    return node.replace(f"{{secret.{secret}}}", f"{{secret.{secret}{NEXT}}}") if isinstance(node, str) else node


def _let_in(changed: Data, database: Data, bridge: str) -> None:
    """A second way in: a login role that becomes the service's own role at once, so that all it makes belongs to that."""
    user = database["user"]
    reference = {"name": f"{database['password']}{NEXT}"}
    if changed["postgres"]:
        roles, hba = changed["postgres"]["roles"], changed["postgres"]["hba"]
        (own,) = (role for role in roles if role["name"] == user)
        roles.append(
            {
                "name": bridge,
                "attributes": ["LOGIN"],
                "member_of": [user],
                "settings": {"role": user},
                "secret": {**own["secret"], **reference},
            }
        )
        hba += [{**line, "user": bridge} for line in hba if line["user"] == user]
    if changed["pooler"]:
        pools = changed["pooler"]["pools"]
        # Its connections are of the plan's budget: that has room for both slots.
        pools += [
            {**pool, "user": bridge, "size": 0, "secret": {**pool["secret"], **reference}}
            for pool in pools
            if pool["user"] == user
        ]


def _drain(host: Host, service: Service, standin: Service) -> Data:
    """Ports of a host whose requests have to end before a slot stops."""
    return {
        key: sorted(
            ports["http"][each.slot_on(host)] for name in each.components if "http" in (ports := each.ports(name))
        )
        for key, each in (("home", service), ("standin", standin))
    }
