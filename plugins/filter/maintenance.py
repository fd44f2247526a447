# GNU General Public License v3.0+ (see LICENSE)
"""Filters of the playbooks that maintain a fleet: whom to ask for its health, who is out of the traffic, what to tell the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.selfhost.fleet.plugins.filter.components import component_probes
from ansible_collections.selfhost.fleet.plugins.filter.edge import edge_probe
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.absence import alone, at_once, stand_ins, without

Data = dict[str, Any]
FOUNDATION_DEADLINE = 60  # seconds


def host_probes(own: Data) -> list[Data]:
    """Arguments of `probe` for all that a host runs, what others stand on first."""
    found: list[Data] = []
    if own["postgres"]:
        unit = f"postgresql@{own['postgres']['version']}-main.service"
        found.append(_tcp("127.0.0.1", own["postgres"]["port"], unit))
    if own["pooler"]:
        found.append(_tcp(own["pooler"]["listen"], own["pooler"]["port"], "pgbouncer.service"))
    for component in own["components"]:
        found += component_probes(component)
    for site in own["edge"]["sites"] if own["edge"] else []:
        found.append({**edge_probe(site, own["certificates"]), "deadline": FOUNDATION_DEADLINE})
    return found


def probes_on(slices: Data, hosts: Iterable[str]) -> list[Data]:
    """The same of several hosts, each with the name of its host."""
    return [{"host": name, "probe": probe} for name in hosts for probe in host_probes(slices[name])]


def _tcp(address: str, port: int, unit: str) -> Data:
    return {"kind": "tcp", "url": f"tcp://{address}:{port}", "deadline": FOUNDATION_DEADLINE, "unit": unit}


def traffic_ports(own: Data) -> list[int]:
    """Ports on which a host's components are asked by edges."""
    ports = (component["ports"].get("http") for component in own["components"])
    return sorted(port for port in ports if port is not None)


def updates_text(found: Data, host: str, reboot: str, lost: Iterable[str], helpers: Iterable[str]) -> list[str]:
    """What is about to happen on a host, line by line; `lost` is what stops meanwhile, `helpers` are the hosts that serve instead."""
    if not found["work"]:
        return [f"{host}: nothing to do", *_left(found)]
    lines = [f"{host}: packages to upgrade: {len(found['upgrades'])}"]
    for upgrade in found["upgrades"]:
        former = upgrade["installed"] or "not installed"
        mark = " (security)" if upgrade["security"] else ""
        lines.append(f"  {upgrade['name']} {former} -> {upgrade['candidate']}{mark}")
    if found["restarts"]:
        lines.append(f"restarts: {', '.join(found['restarts'])}")
    if found["reboot"]:
        words = "boots again" if reboot == "if_needed" else "does not boot again, as patch_reboot is never"
        lines.append(f"{words}: {'; '.join(found['reboot'])}")
    if list(helpers):
        lines.append(f"served meanwhile by: {', '.join(helpers)}")
    if list(lost):
        lines.append(f"nobody else has {', '.join(lost)}: a short interruption is to be expected")
    return lines + _left(found)


def _left(found: Data) -> list[str]:
    lines = [f"kept back by apt: {', '.join(found['kept_back'])}"] if found["kept_back"] else []
    return lines + [
        f"still with former files until the next boot: {unit} ({reason})" for unit, reason in found["left"].items()
    ]


def failure_text(result: Mapping[str, Any]) -> str:
    """What a task said when it failed, of a loop what its failed items said, with the host where they have one."""
    failed = [
        item
        for item in result.get("results", [])
        if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable"))
    ]
    return "\n".join(dict.fromkeys(_said(entry) for entry in failed or [result]))


def _said(result: Mapping[str, Any]) -> str:
    item = result.get("item")
    where = f"{item['host']}: " if isinstance(item, Mapping) and "host" in item else ""
    return where + str(result.get("msg") or "without a word")


def all_absent(names: Iterable[str]) -> list[Data]:
    """Entries of `postgres_cluster` for what is not to be there."""
    return [{"name": name, "state": "absent"} for name in names]


def removal_text(hosts: Iterable[Mapping[str, Any]], going: Data, dry_run: bool) -> list[str]:
    """What went with a service beside its configuration, what stays and where, and what is left to do."""
    service = going["service"]
    lines = []
    for variables in hosts:
        name = variables["inventory_hostname"]
        found = variables.get("leftovers", {})
        dropped = [text for text in variables.get("database", {}).get("statements", []) if text.startswith("DROP ")]
        removed = [*found.get("removed", []), *(dropped if going["delete_data"] else [])]
        lines += [f"{name}: {'would be removed' if dry_run else 'removed'}: {what}" for what in removed]
        kept = [
            f"{entry['what']} ({entry['reason']}). To delete it: {entry['command']}" for entry in found.get("kept", [])
        ]
        if not going["delete_data"]:
            kept += [f"{_dropped(text)} (data). To delete it: -e delete_data={service}" for text in dropped]
        lines += [f"{name}: kept: {words}" for words in kept]
    if going["in_inventory"]:
        lines.append(
            f"{service} is still in the inventory, and the next site.yml would set it up again: take fleet_services.{service} out, "
            f"and its secrets (fleet_secrets.{service})."
        )
    return lines or [f"Nothing of {service} is left on any host."]


def _dropped(statement: str) -> str:
    """`DROP DATABASE fluxbase` as what it would drop."""
    _drop, kind, name = statement.split(maxsplit=2)
    return f"{'database' if kind == 'DATABASE' else 'database role'} {name}"


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "probes_on": probes_on,
            "traffic_ports": traffic_ports,
            "updates_text": updates_text,
            "failure_text": failure_text,
            "all_absent": all_absent,
            "removal_text": removal_text,
            "without_hosts": without,
            "stand_ins": stand_ins,
            "served_alone": alone,
            "absent_at_once": at_once,
        }
