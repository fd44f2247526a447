# GNU General Public License v3.0+ (see LICENSE)
"""How long the certificates on a host are good for, as the files themselves say it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from .host import CHAIN, DAY, PLACEHOLDER, Openssl


def standing(folder: Path, openssl: Openssl, *, now: float) -> list[dict[str, Any]]:
    """One entry per certificate in a folder of folders."""
    return [_entry(path, openssl, now) for path in sorted(folder.glob(f"*/{CHAIN}"))]


def _entry(path: Path, openssl: Openssl, now: float) -> dict[str, Any]:
    present = openssl.certificate(path)
    if present is None:
        return {"name": path.parent.name, "days_left": None, "until": None, "health": "cannot be read"}
    days = int((present.until - now) // DAY)
    health = f"{days} days left" if present.until > now else "expired"
    if PLACEHOLDER in present.issuer:
        health = "placeholder: its authority has given none yet"
    until = datetime.datetime.fromtimestamp(present.until, datetime.UTC)
    return {"name": path.parent.name, "days_left": days, "until": f"{until:%Y-%m-%d %H:%M} UTC", "health": health}
