# GNU General Public License v3.0+ (see LICENSE)
"""What serves on a host, by the notes that the role `service` left there: the slot is the host's to know, as rollouts change it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .commands import Runner

SERVING_FACT = "fleet_serving"
NOTES = Path("/etc/selfhost/services")
RECORDS = Path("/var/lib/selfhost/rollouts")
DATABASE_FACT = "fleet_database"
DATABASE = "postgresql@*.service"
SLOTS = "slots"  # the folder, below that, of a note for each slot


def notes(folder: Path = NOTES) -> list[dict[str, Any]]:
    """One note per component; none where the role has not been there."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def serving(folder: Path = NOTES, records: Path = RECORDS) -> dict[str, dict[str, Any]]:
    """By service: its slot and version (components of a service on a host have the same), their notes, and those of what other slots have kept.

    And the rollouts of it that were begun and have no end (`id`, `version`, `former` and `strategy`), newest last; and of those that are done, from
    which version back to which the way is known to be open (`present` and `former`).
    """
    found: dict[str, dict[str, Any]] = {}
    for note in notes(folder):
        entry = found.setdefault(note["service"], {"notes": [], "kept": []})
        entry |= {"slot": note["slot"], "version": note["version"]}
        entry["notes"].append(note)
    for note in notes(folder / SLOTS):
        if note["service"] in found and note["slot"] != found[note["service"]]["slot"]:
            found[note["service"]]["kept"].append(note)
    for name, entry in found.items():
        entry |= rolled_out(records / name)
    return found


def uptimes(runner: Runner, units: Iterable[str], clock: Callable[[], float]) -> dict[str, float]:
    """Seconds since each of these units started, of those that run; `clock` is the monotonic one. Patterns find units that are loaded."""
    properties = "--property=Id,ActiveState,ActiveEnterTimestampMonotonic"
    shown = runner.run(["systemctl", "show", properties, "--", *units], timeout=30).stdout
    found = {}
    for block in shown.strip().split("\n\n"):
        said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if said.get("ActiveState") == "active":
            found[said["Id"]] = round(clock() - int(said["ActiveEnterTimestampMonotonic"]) / 1e6, 1)
    return found


def with_uptimes(services: dict[str, dict[str, Any]], found: dict[str, float]) -> dict[str, Any]:
    """Of each service that of its oldest unit, and of the host's PostgreSQL that of the youngest; None where nothing runs."""
    for entry in services.values():
        own = [found.get(f"{note['unit']}@{note['slot']}.service") for note in entry["notes"]]
        entry["uptime"] = max((each for each in own if each is not None), default=None)
    database = min((seconds for name, seconds in found.items() if name.startswith("postgresql@")), default=None)
    return {"uptime": database}


def rolled_out(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Of one service. A record that cannot be read is left out: selfhost.fleet.rollout_record names it."""
    unfinished, ways_back = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
            to, former = str(record["to"]["version"]), str((record["from"] or {}).get("version", ""))
            if record["outcome"] == "unfinished":
                strategy = str(record.get("strategy", ""))
                unfinished.append({"id": str(record["id"]), "version": to, "former": former, "strategy": strategy})
            if record["outcome"] == "done" and record.get("way_back"):
                ways_back.append({"present": to, "former": former})
        except (ValueError, KeyError, TypeError):
            continue
    return {"unfinished": unfinished, "ways_back": ways_back}
