"""Users stay with one version while two serve: how many get which, and from which servers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.rollout import shared_traffic
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout import sticky
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.schedule import STRATEGIES, Limits, schedule

from ..plan.fixtures import SEVERAL_HOSTS, fluxbase, three_tiers
from .said import one, serving

HOSTS = ["app1", "app2", "app3"]
LIMITS = Limits(start=180, stop=120, shares=(10, 35, 60))


def rollout(way: object, **rest: Any) -> dict[str, Any]:
    settings = {"FLUXBASE_JOBS_ENABLED": "false", **SEVERAL_HOSTS}
    services = {"fluxbase": fluxbase(settings=settings, rollout={"sticky": way, **rest})}
    return one(three_tiers(fleet_services=services), serving("2026.3.4", app1="blue", app2="blue", app3="blue"))


def site(made: dict[str, Any], **shares: int) -> dict[str, Any]:
    (found,) = shared_traffic(made, "edge1", shares)["edge"]["sites"]
    return dict(found)


def servers(found: dict[str, Any], name: str) -> list[tuple[str, int, int, bool]]:
    (upstream,) = [each for each in found["upstreams"] if each["name"] == name]
    return [(each["host"], each["port"], each["weight"], each.get("backup", False)) for each in upstream["servers"]]


def test_each_version_has_an_upstream_with_the_other_one_as_its_last_resort() -> None:
    found = site(rollout("cookie", strategy="canary"), app1=25, app2=25, app3=25)
    assert found["sticky"] == {"by": "cookie", "share": 25.0, "salt": "2026_3_6", "tries": 4}
    old = [(host, 8081, 75) for host in HOSTS]
    new = [(host, 8082, 25) for host in HOSTS]
    assert servers(found, "fluxbase_server.old") == [(*each, False) for each in old] + [(*each, True) for each in new]
    assert servers(found, "fluxbase_server.new") == [(*each, False) for each in new] + [(*each, True) for each in old]
    assert {route["upstream"] for route in found["routes"] if route["kind"] != "closed"} == {"fluxbase_server"}


def test_while_hosts_change_one_after_the_other_a_slot_that_is_left_gets_nobody() -> None:
    found = site(rollout("address", strategy="rolling"), app1=100, app2=0, app3=0)
    assert (found["sticky"]["by"], found["sticky"]["share"]) == ("address", 33.33)
    assert servers(found, "fluxbase_server.new") == [
        ("app1", 8082, 100, False),
        ("app2", 8081, 100, True),
        ("app3", 8081, 100, True),
    ]


@pytest.mark.parametrize("shares", [dict.fromkeys(HOSTS, 0), dict.fromkeys(HOSTS, 100)], ids=["old", "new"])
def test_where_one_version_serves_all_is_as_without(shares: dict[str, int]) -> None:
    assert site(rollout("cookie"), **shares) == site(rollout("off"), **shares)
    assert "sticky" not in site(rollout("cookie"), **shares)


@pytest.mark.parametrize("off", ["off", False])
def test_it_is_off_unless_it_is_asked_for(off: object) -> None:
    shares = dict.fromkeys(HOSTS, 25)
    assert "sticky" not in site(rollout(off, strategy="canary"), **shares)
    without = one(three_tiers(), serving("2026.3.4", app1="blue", app2="blue", app3="blue"))
    assert without["sticky"] == "off"


def test_a_host_that_runs_the_new_version_already_is_the_new_version_s() -> None:
    says = serving("2026.3.4", app1="blue") | serving("2026.3.6", app2="green", app3="green")
    settings = {"FLUXBASE_JOBS_ENABLED": "false", **SEVERAL_HOSTS}
    services = {"fluxbase": fluxbase(settings=settings, rollout={"sticky": "cookie", "strategy": "canary"})}
    found = site(one(three_tiers(fleet_services=services), says), app1=10)
    assert found["sticky"]["share"] == 70.0
    assert servers(found, "fluxbase_server.old")[0] == ("app1", 8081, 90, False)
    assert [host for host, _port, _weight, backup in servers(found, "fluxbase_server.new") if not backup] == HOSTS


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("hosts", [HOSTS, HOSTS[:1]], ids=["three hosts", "one host"])
def test_the_share_of_users_only_grows_on_the_way_there(strategy: str, hosts: list[str]) -> None:
    traffic = [step.shares for step in schedule(strategy, hosts, hosts, LIMITS) if step.phase == "traffic"]
    shares = [sticky.share_of_users(hosts, hosts, each) for each in traffic]
    assert all(earlier < later for earlier, later in pairwise(shares))
    assert shares[-1] == sticky.ALL


def test_a_component_that_only_one_version_has_is_asked_there_by_all() -> None:
    new = [{"host": "app1", "address": "192.0.2.1", "port": 8092}]
    made = sticky.upstreams_by_version("x_worker", 32, [], new, ["app1"], {"app1": 25})
    assert [[server.get("backup", False) for server in each["servers"]] for each in made] == [[False], [False]]
    assert [each["servers"][0]["port"] for each in made] == [8092, 8092]
