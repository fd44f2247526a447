"""Rollouts computed from the inventory and from what hosts say they run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.rollout import (
    adopted_units,
    notes_with,
    shared_traffic,
    stopped_units,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.refresh import refreshes
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rollout import _runs

from ..plan.fixtures import fluxbase, one_host, three_tiers
from .said import fleet_of, found, note, one, serving, unfinished


def test_where_the_version_runs_there_is_nothing_to_do() -> None:
    made = found(one_host(), serving("2026.3.6", web1="green"))
    assert (made.items, made.findings.items) == ([], [])


def test_each_host_goes_to_its_other_slot() -> None:
    rollout = one(three_tiers(), serving("2026.3.4", app1="green", app2="blue", app3="blue"))
    assert rollout["from"]["app1"] == {"version": "2026.3.4", "slot": "green"}
    assert rollout["to"]["app1"] == {"version": "2026.3.6", "slot": "blue"}
    assert {host: [entry["slot"] for entry in own["standins"]] for host, own in rollout["starting"].items()} == {
        "app1": ["blue"],
        "app2": ["green"],
        "app3": ["green"],
    }
    # What serves is not asked for: the new slot is all that such a slice has.
    assert all(own["components"] == [] for own in rollout["starting"].values())
    assert {entry["serving"] for entry in rollout["starting"]["app1"]["standins"]} == {"green"}
    assert rollout["leaving"] == {"app1": [8082], "app2": [8081], "app3": [8081]}


def test_hosts_that_are_there_already_are_left_alone() -> None:
    says = serving("2026.3.4", app1="blue") | serving("2026.3.6", app2="green", app3="green")
    rollout = one(three_tiers(), says)
    assert rollout["hosts"] == ["app1"]
    servers = shared_traffic(rollout, "edge1", {"app1": 100})["edge"]["sites"][0]["upstreams"][0]["servers"]
    assert {server["host"]: server["port"] for server in servers} == {"app1": 8082, "app2": 8082, "app3": 8082}


def test_traffic_by_shares() -> None:
    rollout = one(three_tiers(), serving("2026.3.4", app1="blue", app2="blue", app3="blue"))

    def servers(**shares: int) -> list[tuple[str, int, int | None]]:
        upstream = shared_traffic(rollout, "edge2", shares)["edge"]["sites"][0]["upstreams"][0]
        return [(server["host"], server["port"], server.get("weight")) for server in upstream["servers"]]

    assert servers(app1=0) == [(f"app{number}", 8081, None) for number in (1, 2, 3)]
    assert servers(app1=100, app2=25) == [
        ("app1", 8082, None),
        ("app2", 8081, 75),
        ("app2", 8082, 25),
        ("app3", 8081, None),
    ]


def test_a_slot_that_has_lost_its_traffic_stands_in_where_it_is_guarded() -> None:
    rollout = one(three_tiers(), serving("2026.3.4", app1="blue", app2="blue") | serving("2026.3.6", app3="green"))

    def servers(kind: str, guard: bool, **shares: int) -> list[tuple[str, int, bool]]:
        slice_of = shared_traffic({**rollout, "kind": kind}, "edge1", shares, guard)
        upstream = slice_of["edge"]["sites"][0]["upstreams"][0]
        return [(server["host"], server["port"], server.get("backup", False)) for server in upstream["servers"]]

    # A host that has the version already has nothing that could stand in, and one that is not moved yet neither.
    assert servers("upgrade", True, app1=100, app2=0, app3=100) == [
        ("app1", 8082, False),
        ("app1", 8081, True),
        ("app2", 8081, False),
        ("app3", 8082, False),
    ]
    assert len(servers("upgrade", False, app1=100, app2=100, app3=100)) == 3
    # The way back of a rollout is not guarded, a rollback is.
    assert servers("rollback", True, app1=0, app2=0, app3=0)[:2] == [("app1", 8081, False), ("app1", 8082, True)]


def cut_off(version: str) -> dict[str, Any]:
    says = serving("2026.3.4", web1="blue")
    says["web1"]["fluxbase"]["notes"][0]["probe"] = {"kind": "http", "url": "http://127.0.0.1:8081/health"}
    says["web1"]["fluxbase"]["unfinished"] = unfinished(version)
    return says


def test_before_a_slot_gets_another_version_than_the_one_that_was_cut_off_its_traffic_goes_back() -> None:
    names = [step["name"] for step in one(one_host(), cut_off("2026.3.5"))["steps"]]
    assert names[:3] == ["revive web1", "traffic web1 0 %", "prepare web1"]
    assert one(one_host(), cut_off("2026.3.6"))["steps"][0]["name"] == "prepare web1"


def test_one_that_was_cut_off_is_taken_back_from_wherever_it_came() -> None:
    says = serving("2026.3.6", web1="blue")
    says["web1"]["fluxbase"]["unfinished"] = unfinished("2026.3.7")
    names = [step["name"] for step in one(one_host(), says)["steps"]]
    assert names == ["revive web1", "traffic web1 0 %", "adopt web1", "discard web1"]
    # A rollback had filled no slot: the one it was on its way to is kept as it was.
    says["web1"]["fluxbase"]["unfinished"] = unfinished("2026.3.4", "rollback")
    names = [step["name"] for step in one(one_host(), says)["steps"]]
    assert names == ["revive web1", "traffic web1 0 %", "adopt web1"]
    # Nothing is taken back of one that had but to settle, and what the other slot has kept is there for a rollback.
    says["web1"]["fluxbase"]["unfinished"] = unfinished("2026.3.6")
    rollout = one(one_host(), says)
    assert [step["name"] for step in rollout["steps"]] == ["settle web1"]
    servers = shared_traffic(rollout, "web1", rollout["steps"][0]["shares"])["edge"]["sites"][0]["upstreams"][0][
        "servers"
    ]
    assert [server["port"] for server in servers] == [8081]


def test_a_service_that_does_not_run_yet_and_a_slot_that_is_named() -> None:
    made = found(one_host(), {})
    assert "Run site.yml first" in made.findings.text()
    pinned = one_host(fleet_services={"fluxbase": fluxbase(slot="blue")})
    assert "Take it out" in found(pinned, serving("2026.3.4", web1="blue")).findings.text()
    assert "is no service of this fleet" in found(one_host(), {}, only="nosuch").findings.text()


def test_a_bad_inventory_is_what_the_plan_says() -> None:
    bad = one_host(fleet_services={"fluxbase": fluxbase(domain="not a domain")})
    made = found(bad, serving("2026.3.4", web1="blue"))
    assert made.findings.items and made.items == []


def test_a_copy_of_the_database_is_made_unless_it_is_switched_off() -> None:
    says = serving("2026.3.4", web1="blue")
    assert one(one_host(), says)["copy"] == {"host": "web1", "database": "fluxbase", "reason": ""}
    without = one(one_host(fleet_services={"fluxbase": fluxbase(rollout={"safety_copy": False})}), says)
    assert without["copy"]["reason"] == "fleet_services.fluxbase.rollout.safety_copy is off"
    assert "copy" not in [step["phase"] for step in without["steps"]]


def test_what_is_written_down_of_one_service_leaves_the_others() -> None:
    says = {
        "fluxbase": {"notes": [note("green", "2.0")]},
        "notes": {"notes": [note("blue", "1.0", "notes")]},
    }
    files = {
        entry["path"]: json.loads(entry["content"]) for entry in notes_with(says, "fluxbase", [note("blue", "1.9")])
    }
    assert {path: entry["version"] for path, entry in files.items()} == {
        "/etc/selfhost/services/notes-server.json": "1.0",
        "/etc/selfhost/services/fluxbase-server.json": "1.9",
    }
    units = {each["name"]: each["state"] for each in adopted_units(says, "fluxbase", [note("blue", "1.9")])}
    assert units == {
        "fluxbase-server@blue.service": "started",
        "fluxbase-server@green.service": "stopped",
        "notes-server@green.service": "stopped",
    }


@pytest.mark.parametrize(
    ("wanted", "there", "runs"),
    [
        ("distribution", "2.11.0-2+b4", True),
        ("2.11.0", "2.11.0-2+b4", True),
        ("2.11.0", "2.11.1-1", False),
        ("2.11.0", "", False),
    ],
)
def test_a_package_is_there_in_any_revision_of_debian_s(wanted: str, there: str, runs: bool) -> None:
    entry = {"version": wanted, "release": {"package": "ntfy", "version": wanted}}
    assert _runs({"version": there}, entry) is runs


def restarted(after: float, **uptimes: float) -> list[dict[str, Any]]:
    """What is refreshed of three application hosts when the database has run for so many seconds."""
    says = serving("2026.3.4", app1="green", app2="blue", app3="blue")
    for host, seconds in uptimes.items():
        says[host]["fluxbase"]["uptime"] = seconds
    fleet, hosts = fleet_of(three_tiers(), says)
    made = refreshes(fleet, hosts, database_uptime=after)
    assert made.findings.items == []
    return made.items


def test_what_started_before_the_database_goes_to_its_other_slot_in_the_version_that_it_has() -> None:
    (refresh,) = restarted(60.0, app1=3600.0, app2=10.0, app3=61.0)
    assert (refresh["kind"], refresh["hosts"]) == ("refresh", ["app1", "app3"])
    # The inventory wants a newer one by now, which is upgrade.yml's.
    assert refresh["to"]["app1"] == {"version": "2026.3.4", "slot": "blue"}
    assert {step["phase"] for step in refresh["steps"]} == {
        "start",
        "gate",
        "traffic",
        "soak",
        "drain",
        "finish",
        "settle",
    }
    assert {entry["version"] for entry in refresh["starting"]["app3"]["standins"]} == {"2026.3.4"}


def test_what_has_started_since_and_what_does_not_run_is_left_alone() -> None:
    assert restarted(60.0, app1=59.0, app2=10.0) == []


def test_on_the_host_of_the_database_services_start_again_with_it() -> None:
    says = serving("2026.3.6", web1="blue")
    says["web1"]["fluxbase"]["uptime"] = 3600.0
    fleet, hosts = fleet_of(one_host(), says)
    assert refreshes(fleet, hosts, database_uptime=1.0).items == []
    assert refreshes(fleet, hosts, database_uptime=1.0, only="nosuch").findings.items


def test_a_slot_that_is_stopped_for_now_comes_back_with_its_host_as_it_did_before() -> None:
    (unit,) = stopped_units([note("green", "2.0")])
    assert (unit["name"], unit["state"], unit["enabled"]) == ("fluxbase-server@green.service", "stopped", None)
