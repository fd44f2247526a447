# GNU General Public License v3.0+ (see LICENSE)
"""What serves on a host, by the notes that the role `service` left there: the slot is the host's to know, as rollouts change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SERVING_FACT = "fleet_serving"
NOTES = Path("/etc/selfhost/services")
RECORDS = Path("/var/lib/selfhost/rollouts")
SLOTS = "slots"  # the folder, below that, of a note for each slot


def notes(folder: Path = NOTES) -> list[dict[str, Any]]:
    """One note per component; none where the role has not been there."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def serving(folder: Path = NOTES, records: Path = RECORDS) -> dict[str, dict[str, Any]]:
    """By service: its slot and version (components of a service on a host have the same), their notes, and those of what other slots have kept.

    And the rollouts of it that were begun and have no end (`id` and `version`), newest last; and of those that are done, from which version back to
    which the way is known to be open (`present` and `former`).
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


def rolled_out(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Of one service. A record that cannot be read is left out: selfhost.fleet.rollout_record names it."""
    unfinished, ways_back = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
            to, former = str(record["to"]["version"]), str((record["from"] or {}).get("version", ""))
            if record["outcome"] == "unfinished":
                unfinished.append({"id": str(record["id"]), "version": to})
            if record["outcome"] == "done" and record.get("way_back"):
                ways_back.append({"present": to, "former": former})
        except (ValueError, KeyError, TypeError):
            continue
    return {"unfinished": unfinished, "ways_back": ways_back}
