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

    And the rollouts of it that were begun and have no end (`id` and `version`), newest last.
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
        entry["unfinished"] = unfinished(records / name)
    return found


def unfinished(folder: Path) -> list[dict[str, str]]:
    """Of one service. A record that cannot be read is no open one: selfhost.fleet.rollout_record names it."""
    open_ones = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
            if record["outcome"] == "unfinished":
                open_ones.append({"id": str(record["id"]), "version": str(record["to"]["version"])})
        except (ValueError, KeyError, TypeError):
            continue
    return open_ones
