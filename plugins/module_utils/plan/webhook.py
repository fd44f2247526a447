# GNU General Public License v3.0+ (see LICENSE)
"""The webhook of the inventory: whether its address can be one, and what of it may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .findings import Findings
from .model import Inventory

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check(inventory: Inventory, findings: Findings) -> None:
    wanted = inventory.variables.get("fleet_notify") or {}
    problem = url_problem(str(wanted["url"])) if "url" in wanted else ""
    if problem:
        findings.add(
            "fleet_notify.url",
            problem,
            "Write it as https://host/path, with what identifies you in fleet_notify.headers; http:// only for the controller itself",
        )


def url_problem(url: str) -> str:
    """Why nothing can be sent there; empty where it can. The address itself may hold a secret, and is not repeated."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is no address"
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        return "is no address that begins with https:// and names a host"
    if re.search(r"[\x00-\x20\x7f]", url):
        return "contains a space or control character"
    if parts.username is not None:
        return "contains a user or password"
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        return "would send in the clear what happens in this fleet"
    return ""


def shown(url: str) -> str:
    """The part of the address that can be no secret."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def own_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Of the user's; a secret out of a file ends with a line break as a rule."""
    return {"Content-Type": "application/json", **{name: str(value).strip() for name, value in headers.items()}}
