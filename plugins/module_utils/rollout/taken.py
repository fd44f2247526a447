# GNU General Public License v3.0+ (see LICENSE)
"""Steps that a rollout has taken, by what the controller remembers of when each was begun: for the ledger and for whoever is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Data = dict[str, Any]
STOPS = ("finish", "adopt", "readopt", "stop", "halt")  # phases in which a slot stops


def taken(begun: Sequence[Data], moment: float, failed: Data | None = None, *, last_failed: bool = False) -> list[Data]:
    """Name, outcome and seconds of each step, and when it ended: a step lasts until the next one begins, the last one until `moment`."""
    ends = [*(step["began"] for step in begun[1:]), moment][: len(begun)]  # none where nothing was begun
    wrong = [index for index, step in enumerate(begun) if failed and step["began"] == failed.get("began")]
    wrong += [len(begun) - 1] if last_failed else []
    return [
        {
            "name": step["name"],
            "outcome": "failed" if index in wrong else "done",
            "seconds": round(max(0.0, end - step["began"]), 3),
            "ended": end,
        }
        for index, (step, end) in enumerate(zip(begun, ends, strict=True))
    ]


def recorded(
    begun: Sequence[Data],
    moment: float,
    failed: Data | None = None,
    *,
    host: str,
    hosts: Sequence[str],
    remarks: Iterable[Mapping[str, str]] = (),
    kill: str = "",
    under_way: bool = False,
) -> list[Data]:
    """The same for a host's record, of the steps that concern it: its own, and what happens on an edge or beside the database alone, which is in all records.

    `hosts` run the service, `remarks` are what hosts say of steps by name, and `kill` what this one says of the last stop. A step that is `under_way`,
    the last one, is not among them.
    """
    said = {name: text for each in remarks for name, text in each.items()}
    done = begun[: len(begun) - under_way]
    stops = [number for number, step in enumerate(done) if step["phase"] in STOPS and host in step["hosts"]]
    return [
        {
            "name": step["name"],
            "outcome": step["outcome"],
            "seconds": step["seconds"],
            "ago": round(max(0.0, moment - step["ended"]), 3),
            "comment": said.get(step["name"], "") or (kill if number in stops[-1:] else ""),
        }
        for number, (step, entry) in enumerate(zip(taken(begun, moment, failed)[: len(done)], done, strict=True))
        if host in entry["hosts"] or not set(entry["hosts"]) & set(hosts)
    ]
