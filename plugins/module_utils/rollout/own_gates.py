# GNU General Public License v3.0+ (see LICENSE)
"""Gates of a service's users: commands and queries of Prometheus that a rollout has to pass beside its own gates, from the inventory's `rollout.gates`.

At two moments: `start`, when a new slot answers and no user is on it yet; `traffic`, with users on it, after each share of a canary, and at the
end of the soak.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..plan.network import in_url

Data = dict[str, Any]
START, TRAFFIC = "start", "traffic"
MOMENTS = {START: (START,), TRAFFIC: (TRAFFIC,), "both": (START, TRAFFIC)}
TIMEOUT = 60  # seconds
NOBODY = "nobody"
# What a query may name; the two last ones are ports of the new slot.
WORDS = ("service", "version", "former", "slot", "host", "address", "http", "metrics")
PORTS = WORDS[-2:]
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")  # of no meaning in PromQL, where braces hold at least a comparison


@dataclass(frozen=True, kw_only=True)
class OwnGate:
    """`timeout`: seconds at most, for each host; the gates of a step come one after the other."""

    name: str
    moments: tuple[str, ...]
    timeout: int = TIMEOUT


def complete(wanted: Data) -> list[Data]:
    """The inventory's entries with their defaults. A command is tried at both moments; what is measured of users needs users."""
    return [
        {
            "name": entry["name"],
            "when": entry.get("when", "both" if "command" in entry else TRAFFIC),
            "timeout": entry.get("timeout", TIMEOUT),
            "command": entry.get("command"),
            "where": entry.get("where", "host"),
            "user": entry.get("user", NOBODY),
            "prometheus": entry.get("prometheus"),
        }
        for entry in wanted.get("rollout", {}).get("gates", [])
    ]


def own_gates(entries: Sequence[Data]) -> list[OwnGate]:
    """For the schedule; `entries` are complete."""
    return [OwnGate(name=entry["name"], moments=MOMENTS[entry["when"]], timeout=entry["timeout"]) for entry in entries]


def arguments(rollout: Data, host: str, step: Data) -> list[Data]:
    """Arguments of `user_gate` for the gates of a step on a host."""
    words = facts(rollout, host)
    environment = {
        "FLEET_SERVICE": words["service"],
        "FLEET_VERSION": words["version"],
        "FLEET_FORMER_VERSION": words["former"],
        "FLEET_SLOT": words["slot"],
        "FLEET_HOST": words["host"],
        "FLEET_ADDRESS": words["address"],
        "FLEET_URL": _url(rollout, host),
        "FLEET_SITE": rollout["site"],
        "FLEET_SHARE": str(step["shares"].get(host, 0)),
    }
    found = []
    for entry in (each for each in rollout["gates"] if each["name"] in step["gates"]):
        made = {key: entry[key] for key in ("name", "timeout")}
        if entry["prometheus"]:
            query = filled(entry["prometheus"]["query"], words)
            found.append({**made, "prometheus": {**entry["prometheus"], "query": query}})
        else:
            found.append(
                {**made, **{key: entry[key] for key in ("command", "where", "user")}, "environment": environment}
            )
    return found


def facts(rollout: Data, host: str) -> dict[str, str]:
    """What a query may name, for a host."""
    slots = rollout["starting"][host]["standins"]
    ports = {name: str(next((slot["ports"][name] for slot in slots if name in slot["ports"]), "")) for name in PORTS}
    return {
        "service": rollout["service"],
        "version": str(rollout["to"][host]["version"]),
        "former": str(rollout["from"][host]["version"]),
        "slot": rollout["to"][host]["slot"],
        "host": host,
        "address": str(rollout["starting"][host]["address"]),
        **ports,
    }


def filled(query: str, words: Mapping[str, str]) -> str:
    """A query with the placeholders' values, as they stand within a quoted text of PromQL."""

    def value(found: re.Match[str]) -> str:
        word = words.get(found[1])
        return found[0] if word is None else re.sub(r"([\\\"'`])", r"\\\1", word)

    return PLACEHOLDER.sub(value, query)


def _url(rollout: Data, host: str) -> str:
    """Of the first component that takes requests, as its host reaches it."""
    slots = (slot for slot in rollout["starting"][host]["standins"] if "http" in slot["ports"])
    return next((f"http://{in_url(slot['listen'])}:{slot['ports']['http']}" for slot in slots), "")
