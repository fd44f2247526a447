# GNU General Public License v3.0+ (see LICENSE)
"""Filters that show things to people: the plan, and the state of the fleet, as plain text tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Data = Mapping[str, Any]


def table(headings: list[str], rows: Iterable[list[Any]]) -> str:
    """A table with columns as wide as their widest cell."""
    cells = [headings, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def plan_text(plan: Data) -> str:
    """The plan, as `playbooks/plan.yml` prints it."""
    hosts: Data = plan["hosts"]
    budget: Data = plan["budget"]
    running = [
        [
            name,
            component["service"],
            component["component"],
            component["version"],
            component["slot"],
            component["probe"]["url"],
        ]
        for name, host in hosts.items()
        for component in host["components"]
    ]
    ports = [
        [name, rule["port"], ", ".join(rule["sources"]), rule["why"]]
        for name, host in hosts.items()
        for rule in host["firewall"]["inbound"]
    ]
    pools = [
        [pool["service"], pool["host"], pool["per_instance"], pool["slots"], pool["size"]] for pool in budget["pools"]
    ]
    parts = [
        "HOSTS",
        table(
            ["host", "address", "os", "roles"],
            [[name, host["address"], host["os"], " ".join(host["roles"])] for name, host in hosts.items()],
        ),
        "",
        "WHAT RUNS WHERE",
        table(["host", "service", "component", "version", "slot", "probe"], running),
        "",
        "OPEN PORTS (everything else is closed)",
        table(["host", "port", "open to", "why"], ports),
        "",
        "DATABASE CONNECTIONS",
        table(["service", "host", "per instance", "slots", "pool"], pools),
        f"{budget['used']} for pools + {budget['reserved']} reserved of max_connections {budget['max_connections']}: {budget['free']} free",
    ]
    parts += ["", "NOTES", *[f"- {note}" for note in plan["notes"]]] if plan["notes"] else []
    return "\n".join(parts)


def status_table(hosts: Iterable[Data]) -> str:
    """The state of the fleet, as `playbooks/status.yml` prints it. Hosts that did not answer are said so."""
    rows: list[list[Any]] = []
    for variables in hosts:
        name = variables["inventory_hostname"]
        found = variables.get("status", {})
        if "components" not in found:
            rows.append(["-", name, "-", "-", "did not answer", "-"])
            continue
        rows += [
            [
                f"{entry['service']}/{entry['component']}",
                name,
                entry["version"],
                entry["slot"],
                entry["health"],
                entry["since"],
            ]
            for entry in found["components"]
        ]
        rows += [
            [entry["unit"].removesuffix(".service"), name, "-", "-", entry["health"], entry["since"]]
            for entry in found["foundation"]
        ]
        rows += [
            [f"certificate {entry['name']}", name, "-", "-", entry["health"], f"until {entry['until'] or '-'}"]
            for entry in found.get("certificates", [])
        ]
        if found.get("renewal"):
            rows.append(["certbot", name, "-", "-", renewal_text(found["renewal"]), found["renewal"]["at"]])
        if not (found["components"] or found["foundation"]):
            rows.append(["-", name, "-", "-", "runs nothing of the fleet", "-"])
    return table(["service", "host", "version", "slot", "health", "since"], sorted(rows))


def renewal_text(renewal: Data) -> str:
    """How the last renewal ended, and where the reason is."""
    if renewal["result"] == "success":
        return "last renewal succeeded"
    return f"last renewal failed ({renewal['result']}): journalctl -u certbot says why"


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"plan_text": plan_text, "status_table": status_table}
