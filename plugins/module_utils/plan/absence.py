# GNU General Public License v3.0+ (see LICENSE)
"""The fleet while some of its hosts are worked on: who takes their requests meanwhile, and for what nobody can."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

from .model import Data


def without(slices: Data, absent: Collection[str]) -> Data:
    """The slices, with edges that send nothing to the absent hosts where another one serves.

    Where none does, the absent one stays: it is better asked than nobody, as it may answer still, or again.
    """
    changed = copy.deepcopy(slices)
    for upstream in _upstreams(changed):
        if any(server["host"] not in absent for server in upstream["servers"]):
            for server in upstream["servers"]:
                if server["host"] in absent:
                    server["down"] = True
    return changed


def stand_ins(slices: Data, absent: Collection[str]) -> list[str]:
    """Hosts that answer in the place of the absent ones."""
    found = {
        server["host"]
        for upstream in _upstreams(slices)
        if any(server["host"] in absent for server in upstream["servers"])
        for server in upstream["servers"]
    }
    return sorted(found - set(absent))


def alone(slices: Data, absent: Collection[str]) -> list[str]:
    """What stops for a moment when the absent hosts do, in words."""
    found = []
    for name in sorted(absent):
        own = slices[name]
        shared = {
            server["host"]: upstream["name"]
            for upstream in _upstreams(slices)
            if any(server["host"] not in absent for server in upstream["servers"])
            for server in upstream["servers"]
        }
        services = sorted({component["service"] for component in own["components"]})
        found += [f"{service} on {name}" for service in services if name not in shared]
        found += [f"the database on {name}"] if own["postgres"] else []
        found += [f"the edge on {name}"] if own["edge"] else []
    return found


def at_once(slices: Data, absent: Collection[str]) -> list[str]:
    """Services of several hosts that would all be absent at the same time."""
    return sorted(
        {
            site["name"]
            for own in slices.values()
            if own["edge"]
            for site in own["edge"]["sites"]
            for upstream in site["upstreams"]
            if len(upstream["servers"]) > 1 and all(server["host"] in absent for server in upstream["servers"])
        }
    )


def _upstreams(slices: Data) -> Iterator[Data]:
    for own in slices.values():
        if own["edge"]:
            for site in own["edge"]["sites"]:
                yield from site["upstreams"]
