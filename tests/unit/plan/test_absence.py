"""The fleet while hosts are away: others have their requests, and what nobody else has is said."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.maintenance import (
    failure_text,
    host_probes,
    probes_on,
    traffic_ports,
    updates_text,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.absence import alone, at_once, stand_ins, without

from .fixtures import one_host, plan, three_tiers

FLEET = plan(three_tiers()).hosts
SINGLE = plan(one_host()).hosts


def servers(slices: dict[str, Any], edge: str) -> dict[str, bool]:
    (site,) = slices[edge]["edge"]["sites"]
    (upstream,) = site["upstreams"]
    return {server["host"]: server.get("down", False) for server in upstream["servers"]}


def test_every_edge_sends_nothing_to_who_is_absent() -> None:
    changed = without(FLEET, ["app2"])
    for edge in ("edge1", "edge2"):
        assert servers(changed, edge) == {"app1": False, "app2": True, "app3": False}
    assert servers(FLEET, "edge1") == {"app1": False, "app2": False, "app3": False}, "the plan stays as it is"


def test_nobody_absent_is_the_plan() -> None:
    assert without(FLEET, []) == FLEET


def test_whom_nobody_stands_in_for_is_still_asked() -> None:
    assert without(SINGLE, ["web1"]) == SINGLE
    assert without(FLEET, ["app1", "app2", "app3"]) == FLEET


def test_who_stands_in() -> None:
    assert stand_ins(FLEET, ["app2"]) == ["app1", "app3"]
    assert stand_ins(FLEET, ["db1"]) == []
    assert stand_ins(SINGLE, ["web1"]) == []


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("app1", []),
        ("db1", ["the database on db1"]),
        ("db2", []),
        ("edge1", ["the edge on edge1"]),
        ("monitor1", []),
    ],
)
def test_what_nobody_else_has(host: str, words: list[str]) -> None:
    assert alone(FLEET, [host]) == words


def test_a_host_that_is_all_has_nobody_else() -> None:
    assert alone(SINGLE, ["web1"]) == ["fluxbase on web1", "the database on web1", "the edge on web1"]


def test_all_hosts_of_a_service_at_once() -> None:
    assert at_once(FLEET, ["app1", "app2", "app3"]) == ["fluxbase"]
    assert at_once(FLEET, ["app1", "app2"]) == []
    assert at_once(SINGLE, ["web1"]) == [], "one host alone is said, and not refused"


# Whom to ask


def test_a_host_is_asked_for_all_that_it_runs_what_others_stand_on_first() -> None:
    asked = [(probe["kind"], probe["url"], probe["unit"]) for probe in host_probes(SINGLE["web1"])]
    assert asked == [
        ("tcp", "tcp://127.0.0.1:5432", "postgresql@17-main.service"),
        ("tcp", "tcp://127.0.0.1:6432", "pgbouncer.service"),
        ("http", "http://127.0.0.1:8081/health", "fluxbase-server@blue.service"),
        ("http", "https://api.example.com/.well-known/selfhost-edge", "nginx.service"),
    ]
    assert host_probes(FLEET["monitor1"]) == []
    assert [entry["host"] for entry in probes_on(FLEET, ["app1", "db1"])] == ["app1", "app1", "db1"]


def test_requests_that_are_waited_for_come_over_http() -> None:
    assert traffic_ports(SINGLE["web1"]) == [8081]
    assert traffic_ports(FLEET["db1"]) == []


# What the operator is told

FOUND = {
    "work": True,
    "upgrades": [
        {"name": "libssl3t64", "installed": "3.5.1-1", "candidate": "3.5.1-2", "security": True},
        {"name": "linux-image-6", "installed": "", "candidate": "6-1", "security": False},
    ],
    "restarts": {"nginx.service": ["/usr/lib/libssl.so.3"]},
    "left": {"dbus.service": "every program would lose it"},
    "reboot": ["linux-image-6 is to be installed"],
    "kept_back": ["redis"],
}


def test_all_that_is_done_is_told_before() -> None:
    assert updates_text(FOUND, "app1", "if_needed", [], ["app2"]) == [
        "app1: packages to upgrade: 2",
        "  libssl3t64 3.5.1-1 -> 3.5.1-2 (security)",
        "  linux-image-6 not installed -> 6-1",
        "restarts: nginx.service",
        "boots again: linux-image-6 is to be installed",
        "served meanwhile by: app2",
        "kept back by apt: redis",
        "still with former files until the next boot: dbus.service (every program would lose it)",
    ]


def test_what_cannot_be_drained_is_told_before() -> None:
    lines = updates_text(FOUND, "web1", "never", ["fluxbase on web1", "the edge on web1"], [])
    assert "does not boot again, as patch_reboot is never: linux-image-6 is to be installed" in lines
    assert "nobody else has fluxbase on web1, the edge on web1: a short interruption is to be expected" in lines


def test_nothing_to_do_is_told_too() -> None:
    idle = {**FOUND, "work": False, "left": {}, "kept_back": []}
    assert updates_text(idle, "app1", "if_needed", ["anything"], []) == ["app1: nothing to do"]


def test_a_failure_says_what_its_items_said() -> None:
    assert failure_text({"msg": "no route"}) == "no route"
    items = [{"failed": True, "msg": "503"}, {"msg": "fine"}, {"failed": True, "msg": "503"}, {"failed": True}]
    assert failure_text({"msg": "One or more items failed", "results": items}) == "503\nwithout a word"
    item = {"failed": True, "msg": "503", "item": {"host": "app1", "probe": {}}}
    away = {"unreachable": True, "msg": "no route", "item": {"host": "app2", "probe": {}}}
    assert failure_text({"results": [item, away]}) == "app1: 503\napp2: no route"
