# GNU General Public License v3.0+ (see LICENSE)
"""What serves on a host, by the notes that the role `service` left there: the slot is the host's to know, as rollouts change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SERVING_FACT = "fleet_serving"
NOTES = Path("/etc/selfhost/services")


def notes(folder: Path = NOTES) -> list[dict[str, Any]]:
    """One note per component; none where the role has not been there."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def serving(folder: Path = NOTES) -> dict[str, dict[str, str]]:
    """Slot and version by service: its components on a host are in the same one."""
    return {note["service"]: {"slot": note["slot"], "version": note["version"]} for note in notes(folder)}
