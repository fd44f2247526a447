# GNU General Public License v3.0+ (see LICENSE)
"""What a rollback that was cut off has left: a database that may have another name, and hosts of which some went back and others did not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..plan.findings import Findings
from ..plan.model import Data
from .fleet import Fleet, Serving

# What the ledger has in place of a strategy.
ROLLBACK = "rollback"
RESTORE = "restore"  # a rollback to the copy of the database


def check(serving: Serving, name: str, hosts: Sequence[str], findings: Findings) -> None:
    """Where a database may have changed its name and nobody serves, there are two ways out, and no other rollout is one."""
    for host in hosts:
        entry = serving[host].get(name, {})
        if any(is_open_restore(each, entry) for each in entry.get("unfinished", [])):
            findings.add(
                f"fleet_services.{name}",
                f"a rollback of {name} to the copy of its database was cut off on {host}",
                f"Run rollback.yml with the same restore again, which finishes it; or have {entry['version']} in the inventory and run upgrade.yml, "
                "which takes it back",
            )
            return


def is_open_restore(unfinished: Data, entry: Data) -> bool:
    """Whether it is a rollback to the copy of the database that has not come as far as to another version that serves."""
    return unfinished.get("strategy") == RESTORE and unfinished["version"] != str(entry["version"])


def is_between(serving: Serving, name: str, hosts: Sequence[str]) -> bool:
    """Whether a rollback was cut off when some of its hosts had gone back, and others had not."""
    open_on = [host for host in hosts if _rollbacks(serving[host].get(name, {}))]
    return 0 < sum(_has_gone_back(serving[host][name]) for host in open_on) < len(open_on)


def as_before(fleet: Fleet, serving: Serving, name: str) -> tuple[Fleet, Serving]:
    """What hosts said before a rollback that has no end yet: of those that have gone back, too.

    All its steps can be taken again, and all of them back, from what there was before it; from a host's own word the next rollback of one that has
    gone back would be one forth.
    """
    gone = [host for host, entries in serving.items() if _has_gone_back(entries.get(name, {}))]
    former = {host: _before(serving[host][name]) for host in gone}
    live = {**fleet.inventory.live.get(name, {}), **{host: str(entry["slot"]) for host, entry in former.items()}}
    inventory = dataclasses.replace(fleet.inventory, live={**fleet.inventory.live, name: live})
    said = {host: {**entries, name: former[host]} if host in former else entries for host, entries in serving.items()}
    return (dataclasses.replace(fleet, inventory=inventory), said) if gone else (fleet, serving)


def _before(entry: Data) -> Data:
    notes = entry["kept"]
    return {**entry, **{key: notes[0][key] for key in ("slot", "version")}, "notes": notes, "kept": entry["notes"]}


def _has_gone_back(entry: Data) -> bool:
    kept = {note["version"] for note in entry.get("kept", [])}
    return any(each["version"] == entry["version"] and each["former"] in kept for each in _rollbacks(entry))


def _rollbacks(entry: Data) -> list[Data]:
    """Those that are open. One that takes another back goes to the version that serves."""
    strategies = (ROLLBACK, RESTORE)
    return [
        each
        for each in entry.get("unfinished", [])
        if each["strategy"] in strategies and each["former"] != each["version"]
    ]
