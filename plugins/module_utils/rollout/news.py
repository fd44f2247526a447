# GNU General Public License v3.0+ (see LICENSE)
"""What becomes of a rollout, as data for whoever wants to know: the operator's terminal, and a webhook (docs/upgrades.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .ledger import plain
from .taken import taken

Data = dict[str, Any]
EVENTS = ("started", "done", "rolled_back", "failed")


def news(
    rollout: Data,
    event: str,
    *,
    moment: float,
    begun: Sequence[Data] = (),
    failed: Data | None = None,
    operator: str = "",
    reason: str = "",
    fleet: str = "",
) -> Data:
    """`moment` and `began` of the steps are seconds since the epoch; `failed` is the step of the way there that failed."""
    return {
        "event": event,
        "fleet": fleet,
        "service": rollout["service"],
        "kind": rollout["kind"],
        "strategy": rollout["strategy"],
        "id": rollout["id"],
        "operator": operator,
        "hosts": list(rollout["hosts"]),
        "from": {host: entry["version"] for host, entry in rollout["from"].items()},
        "to": {host: entry["version"] for host, entry in rollout["to"].items()},
        "at": datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(max(0.0, moment - begun[0]["began"]), 3) if begun else 0.0,
        # It goes to another machine, and other programs' words may repeat what they were given.
        "reason": plain(reason),
        "steps": _planned(rollout) if event == "started" else _taken(event, begun, failed, moment),
    }


def _planned(rollout: Data) -> list[Data]:
    return [{"name": step["name"], "outcome": "planned", "seconds": None} for step in rollout["steps"]]


def _taken(event: str, begun: Sequence[Data], failed: Data | None, moment: float) -> list[Data]:
    steps = taken(begun, moment, failed, last_failed=event == "failed")
    return [{key: step[key] for key in ("name", "outcome", "seconds")} for step in steps]


def one_reason(reasons: Iterable[str], instead: str) -> str:
    """Of all hosts' reasons those that say something; `instead` is what a host says that only knows that another one failed."""
    told = [reason for reason in dict.fromkeys(reasons) if reason and reason != instead]
    return "\n".join(told) or instead


def fleet_name(sources: Iterable[Path]) -> str:
    """The folder of the inventory; empty where the inventory is no file."""
    for source in sources:
        if source.exists():
            return (source.parent if source.is_file() else source).resolve().name
    return ""
