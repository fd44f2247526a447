# GNU General Public License v3.0+ (see LICENSE)
"""Users who stay with one version while two serve: the edges' upstreams by version, and the part of the users that each has.

An edge keeps no list of users. It takes a hash of each user's mark, a cookie of the edge's or the client's address, and whoever is below the share
of the new version gets it: so every edge comes to the same answer, before and after a reload, and who is on the new version stays there as its
share grows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

Data = dict[str, Any]
WAYS = ("cookie", "address")
OLD, NEW = ".old", ".new"  # what the names of upstreams end with; none of a component's has a dot
ALL = 100  # per cent


def share_of_users(hosts: Sequence[str], moving: Collection[str], shares: Mapping[str, int]) -> float:
    """Per cent of a service's users that the new version has; of a host that is not `moving` it has them all, as it runs it already."""
    return round(sum(_share(host, moving, shares) for host in hosts) / len(hosts), 2)


def upstreams_by_version(
    name: str,
    keepalive: int,
    old: Sequence[Data],
    new: Sequence[Data],
    moving: Collection[str],
    shares: Mapping[str, int],
) -> list[Data]:
    """An upstream for each version. The other version's servers are its last resort: a user is moved rather than met by an error."""
    sides: dict[str, list[Data]] = {OLD: [], NEW: []}
    latter = {server["host"]: server for server in new}
    former = {server["host"]: server for server in old}
    for host, server in latter.items():
        share = _share(host, moving, shares)
        if share < ALL and host in former:
            sides[OLD].append({**former[host], "weight": ALL - share})
        if share > 0:
            sides[NEW].append({**server, "weight": share})
    return [
        {"name": f"{name}{side}", "keepalive": keepalive, "servers": _with_last_resort(sides[side], sides[other])}
        for side, other in ((OLD, NEW), (NEW, OLD))
    ]


def tries(upstreams: Sequence[Data]) -> int:
    """How many servers a request may try: all of its version, and one of the other."""
    return max(sum(not server.get("backup") for server in upstream["servers"]) for upstream in upstreams) + 1


def _share(host: str, moving: Collection[str], shares: Mapping[str, int]) -> int:
    return shares.get(host, 0) if host in moving else ALL


def _with_last_resort(own: Sequence[Data], others: Sequence[Data]) -> list[Data]:
    return [*own, *({**server, "backup": True} for server in others)] if own else list(others)
