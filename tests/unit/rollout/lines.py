"""Lines as nginx of the role edge writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

OLD, NEW = "192.0.2.11:8081", "192.0.2.11:8082"
ZONE = timezone(timedelta(hours=2))


def line(time: float = 1000, upstream: str = OLD, status: int = 200, seconds: str = "0.010", **fields: Any) -> str:
    """Without its end. The upstream's status is the request's, unless it is given."""
    entry = {
        "time": datetime.fromtimestamp(int(time), tz=ZONE if int(time) % 2 else UTC).isoformat(),
        "path": "/",
        "kind": "http",
        "status": status,
        "seconds": 0.020,
        "upstream": upstream,
        "upstream_status": str(status),
        "upstream_seconds": seconds,
        **fields,
    }
    return json.dumps(entry, separators=(",", ":"))
