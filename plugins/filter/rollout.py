# GNU General Public License v3.0+ (see LICENSE)
"""Filters of `playbooks/upgrade.yml` and `rollback.yml`: who gets how much traffic, what is written down as serving, what the operator reads."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.selfhost.fleet.plugins.filter.components import component_note, note_files, unit_name
from ansible_collections.selfhost.fleet.plugins.filter.edge import edge_server, edge_word
from ansible_collections.selfhost.fleet.plugins.filter.report import table
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import other_slot
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout import own_gates, sticky, taken
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.cut_off import RESTORE
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.news import news, one_reason
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.schedule import (
    Limits,
    Step,
    back_from_rollback,
    way_back,
)

Data = dict[str, Any]
SHOWN = 5  # lines of a reason in the history


def shared_traffic(rollout: Data, edge: str, shares: Mapping[str, int], guard: bool = False) -> Data:
    """The slice of an edge that sends each host's requests to its new slot by so many per cent, and to the old one for the rest.

    With any request on a new slot it has the routes of the new version, with none those of the old one. Where users stay with one version
    (`rollout.sticky`), each upstream is two while both versions serve, and the site says who gets which.

    With `guard` a slot that has lost all of its requests gets those that the other one cannot be reached with.
    """
    guarded = (0 if rollout["kind"] == "rollback" else 100) if guard else None
    before, after = rollout["before"][edge], rollout["after"][edge]
    changed = _with_own_upstreams(after if any(shares.values()) else before, rollout["service"])
    old = _servers(before, rollout["service"])
    if any(shares.values()) and rollout.get("sticky", "off") in sticky.WAYS:
        for site in (site for site in changed["edge"]["sites"] if site["name"] == rollout["service"]):
            hosts = list(dict.fromkeys(server["host"] for each in site["upstreams"] for server in each["servers"]))
            share = sticky.share_of_users(hosts, rollout["hosts"], shares)
            if share < sticky.ALL:
                return _by_version(rollout, changed, site, old, share, shares)
    for upstream in _upstreams(changed, rollout["service"]):
        new = {server["host"]: server for server in _servers(after, rollout["service"])[upstream["name"]]}
        upstream["servers"] = [
            server
            for former in old.get(upstream["name"], [])
            for server in _weighted(former, new[former["host"]], shares.get(former["host"], 0), guarded)
        ]
    return changed


def _with_own_upstreams(own: Data, service: str) -> Data:
    """A slice of which the service's site and its upstreams may be changed. (A copy in depth takes Ansible half a second, as all in it is a template.)"""
    sites = [
        {**site, "upstreams": [dict(upstream) for upstream in site["upstreams"]]} if site["name"] == service else site
        for site in own["edge"]["sites"]
    ]
    return {**own, "edge": {**own["edge"], "sites": sites}}


def _by_version(
    rollout: Data, changed: Data, site: Data, old: Mapping[str, list[Data]], share: float, shares: Mapping[str, int]
) -> Data:
    site["upstreams"] = [
        each
        for upstream in site["upstreams"]
        for each in sticky.upstreams_by_version(
            upstream["name"],
            upstream["keepalive"],
            old.get(upstream["name"], []),
            upstream["servers"],
            rollout["hosts"],
            shares,
        )
    ]
    site["sticky"] = {
        "by": rollout["sticky"],
        "share": share,
        # Not the same users meet every new version first.
        "salt": edge_word(rollout["to"][rollout["hosts"][0]]["version"]),
        "tries": sticky.tries(site["upstreams"]),
    }
    return changed


def _weighted(old: Data, new: Data, share: int, guarded: int | None) -> list[Data]:
    if share in (0, 100):
        serves, other = (new, old) if share else (old, new)
        # A host that takes no part in it has the same server before and after.
        stands_in = share == guarded and other["port"] != serves["port"]
        return [serves, {**other, "backup": True}] if stands_in else [serves]
    return [{**old, "weight": 100 - share}, {**new, "weight": share}]


def _servers(own: Data, service: str) -> dict[str, list[Data]]:
    return {upstream["name"]: upstream["servers"] for upstream in _upstreams(own, service)}


def _upstreams(own: Data, service: str) -> list[Data]:
    return [each for site in own["edge"]["sites"] if site["name"] == service for each in site["upstreams"]]


def slot_servers(rollout: Data, edge: str, when: str) -> list[str]:
    """Where an edge sends requests of the service, as its log has it: `before` the rollout, or `after` it."""
    servers = [each for servers in _servers(rollout[when][edge], rollout["service"]).values() for each in servers]
    moving = [each for each in servers if each["host"] in rollout["hosts"]]
    return [edge_server({key: each[key] for key in ("address", "port")}) for each in moving]


def notes_with(serving: Mapping[str, Data], service: str, notes: list[Data]) -> list[Data]:
    """Files of all that serves on a host, of one service with these notes."""
    others = [note for name, entry in serving.items() if name != service for note in entry["notes"]]
    return note_files([*others, *notes])


def adopted_units(serving: Mapping[str, Data], service: str, notes: list[Data]) -> list[Data]:
    """Arguments of `config_set`: of this service the slots of these notes, of the others those that serve; and none beside."""
    others = [note for name, entry in serving.items() if name != service for note in entry["notes"]]
    up = [{"name": unit_name(note), "on_change": "none", "enabled": True, "state": "started"} for note in notes]
    idle = [unit_name({**note, "slot": other_slot(note["slot"])}) for note in [*others, *notes]]
    return up + [{"name": name, "on_change": "none", "enabled": False, "state": "stopped"} for name in idle]


def stopped_units(notes: list[Data]) -> list[Data]:
    """Arguments of `config_set`: the slots of these notes do not run, for now. Whether they come back with the host stays as it is."""
    # Said, as without it `config_set` has a unit come back with the host.
    return [{"name": unit_name(note), "on_change": "none", "enabled": None, "state": "stopped"} for note in notes]


def started_notes(rollout: Data, host: str) -> list[Data]:
    """Of the slots that a rollout has started on a host."""
    if rollout["kind"] == "rollback":
        return list(rollout["former"][host])
    return [component_note(entry) for entry in rollout["starting"][host]["standins"]]


def kill_note(warnings: Iterable[Any]) -> str:
    """What there is to note of a stop, in a line: `config_set` warns of one that ended in a kill."""
    return "; ".join(str(each) for each in warnings)


def steps_text(rollout: Data) -> str:
    """The list of steps that would be taken, with the time each may take at most."""
    versions = sorted({entry["version"] for entry in rollout["from"].values()})
    to = sorted({entry["version"] for entry in rollout["to"].values()})
    rows = [
        [number, step["name"], f"{step['seconds']} s at most" if step["seconds"] else "as long as it takes"]
        for number, step in enumerate(rollout["steps"], 1)
    ]
    heading = f"{rollout['service']}: {', '.join(versions)} -> {', '.join(to)}, {rollout['strategy']}"
    left_out = [
        f"\n{what}: {reason}"
        for key, what in (("rehearsal", "not rehearsed"), ("copy", "no copy of the database"))
        if (reason := rollout.get(key, {}).get("reason"))
    ]
    return f"{heading}\n{table(['', 'step', 'time'], rows)}{''.join(left_out)}"


def rehearsal_text(found: Data, rollout: Data) -> list[str]:
    """How a rehearsal went, line by line."""
    host = rollout["rehearsal"]["host"]
    old, new = rollout["from"][host]["version"], rollout["to"][host]["version"]
    rows = (
        "with all rows"
        if found["copied"] == "full"
        else "with the schema and what keeps track of migrations, without other rows"
    )
    lines = [f"rehearsed with a copy of the database ({found['size'] // 2**20} MiB) {rows}"]
    lines.append(f"{new}: {found['new']['words']} after {found['new']['seconds']} s")
    lines += [f"  {table} could not be read for {seconds} s" for table, seconds in sorted(found["locks"].items())]
    if found["old"]:
        lines.append(f"{old} on what that left: {found['old']['words']} after {found['old']['seconds']} s")
    return lines


def rehearsal_refusal(found: Data, rollout: Data, accepted: str = "") -> str:
    """Why the rollout does not go on, in the program's own words; empty where it does."""
    host, service = rollout["rehearsal"]["host"], rollout["service"]
    old, new = rollout["from"][host]["version"], rollout["to"][host]["version"]
    if not found["new"]["ok"]:
        said = (
            "\n  ".join(["It says:", *found["new"]["journal"]]) if found["new"]["journal"] else "It has said nothing."
        )
        return f"{service} {new} does not start on a copy of this database: {found['new']['words']}. {said}\nThe database was not touched."
    if not found["old"]["ok"] and accepted != service:
        said = "\n  ".join(found["old"]["journal"])
        return (
            f"{service} {new} starts, but {old} would not start any more on the database that it leaves: there would be no way back. "
            f"{old} says there:\n  {said or 'nothing'}\nThe database was not touched. To go on without a way back: -e no_way_back={service}"
        )
    return ""


def way_back_known(found: Data, rollout: Data) -> bool:
    """Whether the former version is known to start on the database that the rollout leaves; after a rollback it did serve there once."""
    return rollout["kind"] != "upgrade" or bool((found.get("old") or {}).get("ok"))


def copy_path(rollout: Data) -> str:
    """File of the copy of the database that a rollout makes, or puts back."""
    return f"/var/backups/selfhost/{rollout['service']}/{rollout['copy'].get('restore') or rollout['id']}.dump"


def aside_name(rollout: Data) -> str:
    """What the database is called that a copy takes the place of; at most 63 characters, as PostgreSQL has it.

    Where a rollout takes back one that was cut off, it is that one's name.
    """
    moment = re.sub(r"[^0-9]", "_", (rollout["copy"].get("cut_off") or rollout["id"])[:15])
    return f"{rollout['copy']['database'][:40]}_until_{moment}"


def recorded_strategy(rollout: Data) -> str:
    """What the ledger has for it; runs after one that is cut off go by it."""
    if rollout["kind"] == "upgrade":
        return str(rollout["strategy"])
    return RESTORE if rollout.get("copy", {}).get("restore") else str(rollout["kind"])


def aside_text(rollout: Data) -> str:
    """What is left of the database that a copy took the place of; empty where none did."""
    if not rollout["copy"].get("restore"):
        return ""
    name, host = aside_name(rollout), rollout["copy"]["host"]
    return f"What was written since that copy is in the database {name} on {host}. Without need of it: sudo -u postgres dropdb {name}"


def copy_text(copied: Data) -> str:
    """A copy of the database, for the operator and the ledger."""
    return f"{copied['path']}, {copied['size'] / 2**20:.1f} MiB of {copied['database_size'] / 2**20:.1f}, {copied['checksum']}, {copied['seconds']} s"


def steps_recorded(
    rollout: Data,
    host: str,
    begun: list[Data],
    failed: Data | None = None,
    remarks: Iterable[Mapping[str, str]] = (),
    warnings: Iterable[Any] = (),
    *,
    under_way: bool = False,
) -> list[Data]:
    """Argument `steps` of `rollout_record`; see module_utils/rollout/taken.py. `warnings` are those of the last stop on the host."""
    return taken.recorded(
        begun,
        time.time(),
        failed,
        host=host,
        hosts=rollout["hosts"],
        remarks=remarks,
        kill=kill_note(warnings),
        under_way=under_way,
    )


def history_text(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Rollouts as the hosts have recorded them, the newest first: a line for each, and one for each of its steps."""
    found = [
        (record, variables["inventory_hostname"])
        for variables in hosts
        for record in variables.get("recorded", {}).get("records", [])
    ]
    lines: list[str] = []
    for record, host in sorted(found, key=lambda entry: str(entry[0]["began"]), reverse=True):
        former = (record["from"] or {}).get("version") or "nothing"
        lines.append(
            f"{record['began']} {host}: {record['service']} {former} -> {record['to']['version']}, {record['strategy']}, "
            f"by {record['operator']}: {record['outcome']}{_after(record['seconds'])}"
        )
        for step in record["steps"]:
            remark = f": {step['message'].splitlines()[-1]}" if step.get("message") else ""
            lines.append(f"  {step['name']}: {step['outcome']}{_after(step['seconds'])}{remark}")
        lines += [f"  {line}" for line in _both_ends(str(record["message"]).splitlines())]
    return lines or ["No rollout is recorded on any host."]


def _both_ends(lines: list[str]) -> list[str]:
    """What failed is said first, and the words of a program that lead to it come last."""
    return lines if len(lines) <= SHOWN else [lines[0], "...", *lines[2 - SHOWN :]]


def _after(seconds: float | None) -> str:
    return "" if seconds is None else f" ({seconds:.1f} s)"


def way_back_from(rollout: Data, done: Iterable[Data]) -> list[Data]:
    """Steps from wherever a rollout came to the old slots alone."""
    steps = [_step(entry) for entry in done]
    back = back_from_rollback if rollout["kind"] == "rollback" else way_back
    return [step.as_data() for step in back(steps, rollout["hosts"], Limits(**rollout["limits"]))]


def failed_step(begun: list[Data]) -> Data:
    """The step that was begun last."""
    return begun[-1] if begun else {"name": "the beginning", "phase": ""}


def serves_again(rollout: Data, host: str, begun: Iterable[Data] = ()) -> str:
    """What is left after the way back, for the operator; `begun` are the steps there and back."""
    service, playbook = rollout["service"], f"{'rollback' if rollout['kind'] == 'rollback' else 'upgrade'}.yml"
    if host not in rollout["from"]:
        return f"The former version of {service} serves."
    phases = [step["phase"] for step in begun]
    if "settle" in phases:
        entry = rollout["to"][host]
        return (
            f"{service} {entry['version']} serves, from the slot {entry['slot']}; only an edge still knows the slot that stood in. "
            "Mend what is said above, then run upgrade.yml with this version in the inventory."
        )
    if rollout["kind"] == "upgrade" and phases and "prepare" not in phases:
        return (
            f"So what another run of {service} had begun and was cut off in is not taken back yet. Mend what is said above, then run upgrade.yml "
            "again. With the version of that run in the inventory it goes on with it instead."
        )
    entry = rollout["from"][host]
    ways = "; or set the version in the inventory back" if rollout["kind"] == "upgrade" else ""
    return (
        f"{service} {entry['version']} alone serves, from the slot {entry['slot']} as before. Mend what is said above, then run "
        f"{playbook} again{ways}."
    )


def way_back_failed(rollout: Data, host: str, begun: list[Data], reason: str, is_back: bool = False) -> str:
    """The same where a step of the way back fails, the last one that was begun: the next run finds out what runs. Or only its record, where it `is_back`."""
    service, failed = rollout["service"], failed_step(begun)
    if is_back:
        return f"{serves_again(rollout, host, begun)}\nThat could not be written down on the host, so the next run does it: {reason}"
    if host not in rollout["from"]:
        return f"The way back failed, too, in: {failed['name']}\n{reason}"
    old, new = rollout["from"][host], rollout["to"][host]
    home = 100 if rollout["kind"] == "rollback" else 0
    moves = [set(step["shares"].values()) for step in begun[:-1] if step["phase"] == "traffic"]
    may = "may still" if moves and moves[-1] != {home} else "do not"
    aside = f"\n{aside_text(rollout)} (unless it has its place again)" if rollout.get("copy", {}).get("restore") else ""
    return (
        f"The way back failed, too, in: {failed['name']}\n{reason}\n"
        f"{old['version']} is in the slot {old['slot']}, {new['version']} in the slot {new['slot']}, to which the edges {may} send requests. "
        f"Mend what is said above, then run upgrade.yml: with {old['version']} in the inventory it takes the rest back, with {new['version']} it "
        f"goes on. Until then site.yml leaves {service} alone, and the host remembers this rollout as unfinished.{aside}"
    )


def rollout_news(
    rollout: Data, event: str, begun: Iterable[Data], failed: Data | None = None, operator: str = "", reason: str = ""
) -> Data:
    """Argument of `rollout_event`; see module_utils/rollout/news.py."""
    steps = list(begun)
    return news(rollout, event, moment=time.time(), begun=steps, failed=failed, operator=operator, reason=reason)


def _step(entry: Data) -> Step:
    known = {key: entry[key] for key in ("phase", "seconds", "shares")}
    return Step(**known, hosts=tuple(entry["hosts"]), gates=tuple(entry["gates"]))


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "shared_traffic": shared_traffic,
            "slot_servers": slot_servers,
            "own_gates": own_gates.arguments,
            "notes_with": notes_with,
            "adopted_units": adopted_units,
            "steps_text": steps_text,
            "rehearsal_text": rehearsal_text,
            "rehearsal_refusal": rehearsal_refusal,
            "history_text": history_text,
            "way_back_known": way_back_known,
            "copy_path": copy_path,
            "aside_name": aside_name,
            "recorded_strategy": recorded_strategy,
            "aside_text": aside_text,
            "copy_text": copy_text,
            "way_back_from": way_back_from,
            "failed_step": failed_step,
            "stopped_units": stopped_units,
            "started_notes": started_notes,
            "steps_recorded": steps_recorded,
            "way_back_failed": way_back_failed,
            "serves_again": serves_again,
            "rollout_news": rollout_news,
            "one_reason": one_reason,
        }
