"""What may come in, what may go out, and who is shut out."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.firewall import web_port

from .fixtures import CHECKSUM, SEVERAL_HOSTS, fluxbase, one_host, plan, three_tiers


def firewall(host: str = "web1", inventory: Any = None, **wanted: Any) -> dict[str, Any]:
    fleet = plan(inventory or one_host(fleet_firewall=wanted))
    assert fleet.findings.items == []
    found: dict[str, Any] = fleet.hosts[host]["firewall"]
    return found


def ways(host: str, **variables: Any) -> set[tuple[Any, ...]]:
    inventory = three_tiers(fleet_firewall={"egress": "closed"}, **variables)
    return {
        (way["port"], way["protocol"], *way["destinations"], *way["users"])
        for way in firewall(host, inventory)["outbound"]
    }


EVERY_HOST = {
    (53, "udp", "any"),
    (53, "tcp", "any"),
    (123, "udp", "any"),
    (80, "tcp", "any", "root", "_apt"),
    (443, "tcp", "any", "root", "_apt"),
}


def test_only_ssh_is_limited() -> None:
    rates = {rule["port"]: rule["rate"] for rule in firewall()["inbound"]}
    assert rates == {22: {"per_minute": 60, "burst": 60}, 80: None, 443: None}
    assert firewall(ssh_rate={"per_minute": 5, "burst": 9})["inbound"][0]["rate"] == {"per_minute": 5, "burst": 9}
    assert firewall(ssh_rate=False)["inbound"][0]["rate"] is None


def test_everything_may_go_out_by_default() -> None:
    assert firewall()["outbound"] is None
    assert firewall(egress="open")["outbound"] is None


def test_what_a_closed_host_may() -> None:
    assert ways("monitor1") >= EVERY_HOST
    # Poolers to the database, edges to the programs, the monitor to their metrics: what the other end lets in, and no more.
    assert ways("app1") - EVERY_HOST == {(port, "tcp", "192.0.2.16") for port in (5432, 5431)}
    programs = {f"192.0.2.{last}" for last in (13, 14, 15)}
    assert ways("edge1") - EVERY_HOST == {(port, "tcp", ip) for port in (8081, 8082) for ip in programs}
    assert ways("monitor1") - EVERY_HOST == {(port, "tcp", ip) for port in (9091, 9092) for ip in programs}
    assert ways("db1") == EVERY_HOST


def test_what_goes_out_is_let_in() -> None:
    fleet = plan(three_tiers(fleet_firewall={"egress": "closed"}))
    for name, host in fleet.hosts.items():
        for other in fleet.hosts.values():
            let_in = {rule["port"] for rule in other["firewall"]["inbound"] if host["address"] in rule["sources"]}
            goes = {way["port"] for way in host["firewall"]["outbound"] if other["address"] in way["destinations"]}
            assert goes == let_in, f"from {name} to {other['name']}"


def test_a_services_own_egress_is_its_users() -> None:
    services = {"fluxbase": fluxbase(egress=["203.0.113.0/24", "2001:db8::1"])}
    fleet = plan(one_host(fleet_services=services, fleet_firewall={"egress": "closed"}))
    (way,) = [way for way in fleet.hosts["web1"]["firewall"]["outbound"] if way["protocol"] == "any"]
    assert way["destinations"] == ["203.0.113.0/24", "2001:db8::1"]
    assert way["users"] == ["fluxbase"]
    assert way["port"] is None


def test_ports_of_addresses_that_the_plan_knows() -> None:
    entry = fluxbase(
        release={"source": "https://releases.example.com:8443/fluxbase", "checksum": CHECKSUM},
        companions={"deno": {"version": "2.9.0", "source": "http://[2001:db8::1]:8000/deno.zip", "checksum": CHECKSUM}},
        settings=None,
    )
    wanted = {"fleet_certificates": {"mode": "acme", "server": "https://acme.example.net:14000/dir"}}
    made = plan(one_host(fleet_services={"fluxbase": entry}, fleet_firewall={"egress": "closed"}, **wanted))
    assert made.findings.items == []
    ways = {(way["port"], *way["users"]): way for way in made.hosts["web1"]["firewall"]["outbound"]}
    assert {port for port, *users in ways if users == ["root"]} == {8000, 8443, 14000}
    assert ways[8443, "root"]["why"] == "releases of fluxbase" and ways[14000, "root"]["why"] == "certificates"
    # Who has nothing from there has no way there.
    several = {"fluxbase": {**entry, "settings": SEVERAL_HOSTS}}
    tiers = plan(three_tiers(fleet_services=several, fleet_firewall={"egress": "closed"}))
    asking = {name for name, own in tiers.hosts.items() if 8443 in [way["port"] for way in own["firewall"]["outbound"]]}
    assert asking == {"app1", "app2", "app3"}


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://example.com/x", 443),
        ("http://example.com", 80),
        ("https://example.com:8443/x", 8443),
        ("https://example.com:99999/x", None),
        ("https://[::1/x", None),
        ("/srv/releases/fluxbase:1", None),
        ("fluxbase", None),
    ],
)
def test_the_port_of_an_address(url: str, port: int | None) -> None:
    assert web_port(url) == port


def test_resolvers_and_more_ways() -> None:
    mail = {"port": 587, "destinations": ["203.0.113.25"], "why": "mail"}
    found = firewall(egress="closed", resolvers=["192.0.2.53"], outbound=[mail])["outbound"]
    assert [way["destinations"] for way in found if way["port"] == 53] == [["192.0.2.53"]] * 2
    assert found[-1] == {**mail, "protocol": "tcp", "users": []}


def test_the_fleet_is_trusted() -> None:
    inventory = three_tiers(fleet_firewall={"trusted": ["203.0.113.0/24"]})
    fleet = plan(inventory)
    everybody = [f"192.0.2.{last}" for last in range(11, 20)]
    assert fleet.hosts["app1"]["firewall"]["trusted"] == [*everybody, "203.0.113.0/24"]
    assert fleet.hosts["app1"]["bans"]["trusted"] == [*everybody, "203.0.113.0/24"]


def test_bans() -> None:
    fleet = plan(three_tiers())
    assert fleet.hosts["db1"]["bans"]["ports"] == {"ssh": [22]}
    edge = fleet.hosts["edge1"]["bans"]
    assert edge["ports"] == {"ssh": [22], "login": [80, 443]}
    assert edge["limits"]["ssh"] == {"failures": 5, "window": 600, "duration": 3600}
    changed = {"ssh": {"failures": 3}, "login": False}
    edge = plan(three_tiers(fleet_firewall={"bans": changed})).hosts["edge1"]["bans"]
    assert edge["limits"] == {"ssh": {"failures": 3, "window": 600, "duration": 3600}}


def test_bans_that_are_switched_off_go_from_the_host() -> None:
    for off in (False, {"ssh": False, "login": False}):
        web1 = plan(one_host(fleet_firewall={"bans": off})).hosts["web1"]
        assert web1["bans"] is None
        assert "bans" not in web1["roles"]
        assert "bans" not in web1["sets"]["keep"]
        assert "bans" in web1["sets"]["among"]


def test_login_routes_reach_the_edge() -> None:
    routes = plan(one_host()).hosts["web1"]["edge"]["sites"][0]["routes"]
    marked = {route["path"]: route["login"] for route in routes if route["login"]}
    assert marked == {path: {"failures": [401, 403]} for path in ("/api/v1/auth/signin", "/dashboard/auth/login")}


@pytest.mark.parametrize(
    ("wanted", "variable"),
    [
        ({"egress": "shut"}, "fleet_firewall.egress"),
        ({"trusted": ["office"]}, "fleet_firewall.trusted.0"),
        ({"trusted": ["any"]}, "fleet_firewall.trusted.0"),
        ({"resolvers": ["192.0.2.1/24"]}, "fleet_firewall.resolvers.0"),
        (
            {"outbound": [{"port": 25, "why": "mail", "destinations": ["mx"]}]},
            "fleet_firewall.outbound.0.destinations.0",
        ),
        ({"outbound": [{"port": 25, "destinations": ["any"]}]}, "fleet_firewall.outbound.0.why"),
        ({"bans": {"ssh": {"failures": 0}}}, "fleet_firewall.bans"),
        ({"bans": True}, "fleet_firewall.bans"),
        ({"ssh_rate": {"per_minute": 5}}, "fleet_firewall.ssh_rate"),
        ("closed", "fleet_firewall"),
    ],
)
def test_mistakes(wanted: Any, variable: str) -> None:
    findings = plan(one_host(fleet_firewall=wanted)).findings.items
    assert [finding.variable for finding in findings] == [variable]
