# GNU General Public License v3.0+ (see LICENSE)
"""The databases that a host's PgBouncer has pools for, as the role `pooler` wrote them."""

from __future__ import annotations

from pathlib import Path

POOLS_FACT = "fleet_pools"
CONFIGURATION = Path("/etc/pgbouncer/pgbouncer.ini")
OURS = "; Managed by selfhost.fleet.pooler"


def pools(path: Path = CONFIGURATION) -> dict[str, str]:
    """What follows "=" in the section [databases], by the database's name; none where the role has not been there."""
    lines = path.read_text().splitlines() if path.exists() else []
    found: dict[str, str] = {}
    if not lines or not lines[0].startswith(OURS):
        return found
    section = ""
    for line in lines:
        name, equals, options = line.partition("=")
        if line.startswith("["):
            section = line.strip()
        elif section == "[databases]" and equals and not line.startswith(";"):
            found[name.strip()] = options.strip()
    return found
