# GNU General Public License v3.0+ (see LICENSE)
"""What runs on a host: components, read back from the notes that the role `service` left, from systemd and from their probes; and what they stand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Data = dict[str, Any]
FOUNDATION = ("nginx.service", "pgbouncer.service", "postgresql@*.service")
PROPERTIES = ("ActiveState", "SubState", "ActiveEnterTimestamp", "NRestarts", "Result")


def properties(text: str) -> dict[str, str]:
    """`systemctl show` as a mapping."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def state(note: Data, show: Callable[[str], str], healthy: Callable[[Data], tuple[bool, str]]) -> Data:
    """State of one component.

    `show` runs `systemctl show` for a unit; `healthy` asks the probe and says what it answered.
    """
    unit = f"{note['unit']}@{note['slot']}.service"
    found = properties(show(unit))
    active = found.get("ActiveState", "unknown")
    if active == "active":
        ok, answer = healthy(note["probe"])
        health = "healthy" if ok else f"not healthy: {answer}"
    else:
        health = f"{active} ({found.get('Result', 'unknown')})"
    return {
        "service": note["service"],
        "component": note["component"],
        "unit": unit,
        "version": note["version"],
        "slot": note["slot"],
        "health": health,
        "since": found.get("ActiveEnterTimestamp") or "-",
        "restarts": int(found.get("NRestarts", "0") or 0),
    }


def foundation(listing: str, show: Callable[[str], str]) -> list[Data]:
    """State of nginx, PgBouncer and PostgreSQL where they are; `listing` is `systemctl list-units` of FOUNDATION.

    Health is systemd's word, as nobody has said how to ask them.
    """
    found = []
    for line in listing.splitlines():
        unit, loaded = line.split()[:2]
        if loaded == "loaded":
            state = properties(show(unit))
            found.append(
                {
                    "unit": unit,
                    "health": state.get("ActiveState", "unknown"),
                    "since": state.get("ActiveEnterTimestamp") or "-",
                    "restarts": int(state.get("NRestarts", "0") or 0),
                }
            )
    return found


def renewal(path: Path) -> Data | None:
    """How certbot's last renewal ended, as its unit has noted it; None where there was none."""
    if not path.exists():
        return None
    result, _space, at = path.read_text().strip().partition(" ")
    return {"result": result, "at": at}
