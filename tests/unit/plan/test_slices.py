"""What every host is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from .fixtures import SECRETS, fluxbase, one_host, plan, three_tiers

OWN = Path(__file__).parents[2] / "inventories" / "own" / "services"


def test_one_host_is_everything() -> None:
    fleet = plan(one_host())
    assert fleet.findings.items == []
    web1 = fleet.hosts["web1"]
    assert web1["roles"] == [
        "baseline",
        "users",
        "ssh",
        "hardening",
        "firewall",
        "bans",
        "certificate",
        "postgres",
        "pooler",
        "service",
        "edge",
    ]
    assert {rule["port"] for rule in web1["firewall"]["inbound"]} == {22, 80, 443}
    assert web1["postgres"]["listen"] == ["127.0.0.1"]
    assert {"nginx", "postgresql-17", "postgresql-17-pgvector", "pgbouncer", "nftables"} <= set(web1["packages"])


def test_a_component_is_whole_in_its_slot() -> None:
    server = plan(one_host()).hosts["web1"]["components"][0]
    assert server["environment"]["FLUXBASE_SERVER_ADDRESS"] == "127.0.0.1:8081"
    assert server["environment"]["FLUXBASE_DATABASE_PORT"] == "6432"
    assert server["ports"] == {"http": 8081, "metrics": 9091}
    assert server["release"]["member"] == "fluxbase-server-linux-amd64"
    assert server["release"]["source"].endswith("/v2026.3.6/fluxbase-server-linux-amd64.tar.gz")


def test_the_slot_is_the_host_s_own_and_the_edges_know_it() -> None:
    made = plan(three_tiers(), live={"fluxbase": {"app1": "green"}})
    found = {name: made.hosts[name]["components"][0] for name in ("app1", "app2")}
    assert {name: (each["slot"], each["ports"]["http"]) for name, each in found.items()} == {
        "app1": ("green", 8082),
        "app2": ("blue", 8081),
    }
    assert found["app1"]["environment"]["FLUXBASE_METRICS_PORT"] == "9092"
    (upstream,) = made.hosts["edge2"]["edge"]["sites"][0]["upstreams"]
    assert {server["host"]: server["port"] for server in upstream["servers"]} == {
        "app1": 8082,
        "app2": 8081,
        "app3": 8081,
    }


def test_a_slot_that_the_inventory_names_comes_before_that_of_the_host() -> None:
    pinned = one_host(fleet_services={"fluxbase": fluxbase(slot="blue")})
    assert plan(pinned, live={"fluxbase": {"web1": "green"}}).hosts["web1"]["components"][0]["slot"] == "blue"


def test_a_port_that_a_setting_switches_off_is_not_asked() -> None:
    def unused(**settings: str) -> object:
        return plan(
            one_host(fleet_services={"fluxbase": fluxbase(settings={"FLUXBASE_JOBS_ENABLED": "false", **settings})})
        ).hosts["web1"]["components"][0]["unused_ports"]

    assert unused() == []
    assert unused(FLUXBASE_METRICS_ENABLED="false") == ["metrics"]


def test_deno_loosens_one_option_and_only_with_jobs() -> None:
    without = plan(one_host()).hosts["web1"]["components"][0]
    assert without["companions"] == [] and without["hardening"] == {}
    deno = {"deno": {"version": "2.9.0", "checksum": "sha256:" + "cd" * 32}}
    server = plan(one_host(fleet_services={"fluxbase": fluxbase(settings=None, companions=deno)})).hosts["web1"][
        "components"
    ][0]
    assert [companion["name"] for companion in server["companions"]] == ["deno"]
    assert list(server["hardening"]) == ["MemoryDenyWriteExecute"]


def test_the_2025_contract_has_its_password_in_an_address() -> None:
    secrets = {
        "FLUXBASE_JWT_SECRET": SECRETS["FLUXBASE_AUTH_JWT_SECRET"],
        "FLUXBASE_DATABASE_PASSWORD": SECRETS["FLUXBASE_DATABASE_PASSWORD"],
    }
    old = fluxbase(
        version="0.9.4", secrets=secrets, release={"source": "/tmp/fluxbase", "checksum": "sha256:" + "ab" * 32}
    )
    fleet = plan(one_host(os="debian-12", fleet_services={"fluxbase": old}))
    assert fleet.findings.items == []
    server = fleet.hosts["web1"]["components"][0]
    assert "{secret.FLUXBASE_DATABASE_PASSWORD}" in server["secrets"]["DATABASE_URL"]
    assert "FLUXBASE_DATABASE_PASSWORD" not in server["secrets"]
    assert server["probe"]["url"].endswith("/ready")
    assert "postgresql-15" in fleet.hosts["web1"]["packages"]


@pytest.mark.parametrize(
    ("version", "os", "closed", "rest"),
    [
        ("0.9.4", "debian-12", "/dashboard/auth/signup", "/dashboard/auth/"),
        ("2026.3.6", "debian-13", "/api/v1/admin/setup", "/"),
        ("2026.3.7-rc.13", "debian-13", "/api/v1/admin/setup", "/"),
    ],
)
def test_the_edge_makes_nobody_the_first_administrator(version: str, os: str, closed: str, rest: str) -> None:
    secrets = {**SECRETS, "FLUXBASE_JWT_SECRET": SECRETS["FLUXBASE_AUTH_JWT_SECRET"]}
    known = ("FLUXBASE_JWT_SECRET", "FLUXBASE_DATABASE_PASSWORD") if version == "0.9.4" else tuple(SECRETS)
    entry = fluxbase(
        version=version,
        secrets={name: secrets[name] for name in known},
        release={"source": "/tmp/fluxbase", "checksum": "sha256:" + "ab" * 32},
        companions={"pgschema": {"version": "1.4.0", "checksum": "sha256:" + "cd" * 32}} if "rc" in version else None,
    )
    fleet = plan(one_host(os=os, fleet_services={"fluxbase": entry}))
    assert fleet.findings.items == []
    routes = fleet.hosts["web1"]["edge"]["sites"][0]["routes"]
    paths = [route["path"] for route in routes]
    kinds = {route["path"]: route["kind"] for route in routes}
    assert (kinds[closed], kinds[rest]) == ("closed", "http")
    # The first that matches counts.
    assert paths.index(closed) < paths.index(rest)
    assert next(route for route in routes if route["path"] == closed)["reason"]


def test_no_secret_is_in_the_plan() -> None:
    text = json.dumps(plan(one_host()).as_fact())
    assert not [name for name, value in SECRETS.items() if value in text]


def test_addresses_of_ipv6_stand_in_brackets_before_a_port() -> None:
    server = plan(three_tiers(addresses="2001:db8::{}")).hosts["app1"]["components"][0]
    assert server["listen"] == "2001:db8::13"
    assert server["environment"]["FLUXBASE_SERVER_ADDRESS"] == "[2001:db8::13]:8081"
    assert server["probe"]["url"] == "http://[2001:db8::13]:8081/health"


def test_the_production_fleet() -> None:
    fleet = plan(three_tiers())
    assert fleet.findings.items == []
    assert fleet.hosts["edge1"]["roles"] == [
        "baseline",
        "users",
        "ssh",
        "hardening",
        "firewall",
        "bans",
        "certificate",
        "edge",
    ]
    assert fleet.hosts["app1"]["roles"] == [
        "baseline",
        "users",
        "ssh",
        "hardening",
        "firewall",
        "bans",
        "certificate",
        "pooler",
        "service",
    ]
    assert fleet.hosts["db1"]["roles"] == [
        "baseline",
        "users",
        "ssh",
        "hardening",
        "firewall",
        "bans",
        "certificate",
        "postgres",
    ]
    assert fleet.hosts["db2"]["roles"] == ["baseline", "users", "ssh", "hardening", "firewall", "bans"]
    servers = fleet.hosts["edge1"]["edge"]["sites"][0]["upstreams"][0]["servers"]
    assert [server["address"] for server in servers] == [f"192.0.2.{n}" for n in (13, 14, 15)]
    rules = {rule["port"]: rule for rule in fleet.hosts["app1"]["firewall"]["inbound"]}
    assert rules[8081]["sources"] == ["192.0.2.11", "192.0.2.12"]
    assert rules[9091]["sources"] == ["192.0.2.19"]
    assert 6432 not in rules
    database = {rule["port"]: rule for rule in fleet.hosts["db1"]["firewall"]["inbound"]}
    assert database[5432]["sources"] == ["192.0.2.13", "192.0.2.14", "192.0.2.15"]
    assert fleet.hosts["app2"]["components"][0]["listen"] == "192.0.2.14"
    # Itself, as its probe comes from there, the edges, and the monitor that reads its metrics.
    assert fleet.hosts["app2"]["components"][0]["network"] == [
        "localhost",
        *(f"192.0.2.{n}" for n in (14, 11, 12, 19)),
    ]
    assert (
        fleet.hosts["app1"]["pooler"]["pools"][0]["ca"]
        == fleet.hosts["app1"]["certificates"][0]["directory"] + "/ca.pem"
    )
    assert fleet.budget["used"] == 126 and fleet.budget["free"] == 200 - 13 - 126
    assert "db2, db3" in fleet.notes[0]


@pytest.mark.parametrize(
    ("value", "refused"),
    [("no-referrer", False), ("", False), ('a"; return 200 "', True), ("$request_id", True), ("two\nlines", True)],
)
def test_a_service_has_headers_of_its_own(tmp_path: Path, value: str, refused: bool) -> None:
    definition = yaml.safe_load((OWN / "ntfy.yml").read_text()) | {"headers": {"Referrer-Policy": value}}
    (tmp_path / "ntfy.yml").write_text(yaml.safe_dump(definition))
    ntfy = {"version": "2.11.0", "domain": "ntfy.example.com", "hosts": "app"}
    fleet = plan(one_host(groups={"postgres": []}, fleet_services={"ntfy": ntfy}), tmp_path)
    assert bool(fleet.findings.items) is refused
    if refused:
        assert "headers" in fleet.findings.text()
    else:
        assert fleet.hosts["web1"]["edge"]["sites"][0]["headers"] == {"Referrer-Policy": value}
