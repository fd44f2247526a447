"""Where programs come from: what the plan says of each kind of release, and what of it is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.compute import Plan
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import merge

from .fixtures import CHECKSUM, ROOT, fluxbase, one_host, plan

EXAMPLE = ROOT / "tests" / "inventories" / "own"
PACKAGED: dict[str, Any] = {
    "name": "push",
    "description": "a package",
    "components": {
        "server": {
            "release": {"package": "ntfy", "units": ["ntfy.service", "ntfy-client.service"]},
            "packages": ["sqlite3"],
            "command": ["{executable}", "serve", "--listen", "{listen}:{port.http}"],
            "ports": {"http": {"blue": 8281, "green": 8282}},
        }
    },
    "routes": [{"path": "/", "kind": "http"}],
    "contracts": [{"versions": ">=2"}],
}
ENTRY = {"version": "2.11.0", "domain": "push.example.com", "hosts": "app"}


def planned(folder: Path, definition: dict[str, Any] | None = None, os: str = "debian-13", /, **entry: Any) -> Plan:
    folder.joinpath("push.yml").write_text(yaml.safe_dump(merge(PACKAGED, definition or {})))
    return plan(one_host(os=os, fleet_services={"push": {**ENTRY, **entry}}), folder)


def refused(made: Plan) -> dict[str, str]:
    return {finding.variable: f"{finding.problem} | {finding.remedy}" for finding in made.findings.items}


def test_a_package_is_installed_with_all_others_and_its_own_units_may_not_run(tmp_path: Path) -> None:
    made = planned(tmp_path)
    assert refused(made) == {}
    host = made.hosts["web1"]
    assert {"ntfy", "sqlite3", "nginx"} <= set(host["packages"])
    units = ["ntfy-client.service", "ntfy.service"]
    assert host["packaged"] == [{"package": "ntfy", "version": "2.11.0", "units": units}]
    component = host["components"][0]
    assert component["release"]["program"] == "/usr/bin/ntfy" and component["release"]["executable"] == "ntfy"
    # dpkg has one version of it, which both slots would run.
    assert component["strategies"] == ["restart"]


def test_whatever_the_distribution_has(tmp_path: Path) -> None:
    host = planned(tmp_path, version="distribution").hosts["web1"]
    assert host["packaged"][0]["version"] is None
    assert host["components"][0]["release"]["version"] == "distribution"


def test_neither_postgresql_nor_a_pooler_without_a_database(tmp_path: Path) -> None:
    planned(tmp_path)
    inventory = one_host(groups={"postgres": []}, fleet_services={"push": ENTRY})
    host = plan(inventory, tmp_path).hosts["web1"]
    assert not {"postgres", "pooler"} & set(host["roles"])
    assert [name for name in host["packages"] if "postgres" in name or "pgbouncer" in name] == []


def test_a_file_keeps_its_ways(tmp_path: Path) -> None:
    own = {"release": {"package": None, "units": None, "executable": "push"}}
    made = planned(tmp_path, {"components": {"server": own}}, release={"source": "/srv/push", "checksum": CHECKSUM})
    assert refused(made) == {}
    component = made.hosts["web1"]["components"][0]
    assert "blue_green" in component["strategies"] and made.hosts["web1"]["packaged"] == []


@pytest.mark.parametrize(
    ("release", "entry", "os", "variable", "words"),
    [
        (
            {"address": "https://example.com/x"},
            {},
            "debian-13",
            "services/push.yml.components.server.release",
            "has package and address",
        ),
        ({"packge": "ntfy"}, {}, "debian-13", "services/push.yml.components.server.release.packge", "is no known key"),
        (
            {"package": "Ntfy!"},
            {},
            "debian-13",
            "services/push.yml.components.server.release.package",
            "does not match",
        ),
        (
            {"executable": "ntfy"},
            {},
            "debian-13",
            "services/push.yml.components.server.release.executable",
            "Write it as /usr/bin/ntfy",
        ),
        (
            {"package": "postgresql-17"},
            {},
            "debian-13",
            "services/push.yml.components.server.release.package",
            "run by a role of this collection",
        ),
        (
            {"distributions": ["debian-13"]},
            {},
            "debian-12",
            "hosts.web1.fleet_os",
            "has no package ntfy",
        ),
        (
            {},
            {"release": {"checksum": CHECKSUM}},
            "debian-13",
            "fleet_services.push.release.checksum",
            "Debian's package ntfy | Take it out",
        ),
        (
            {"package": None, "units": None, "address": "https://example.com/x"},
            {"version": "distribution"},
            "debian-13",
            "fleet_services.push.version",
            "Name the version",
        ),
        (
            {"package": None, "units": None, "executable": "/usr/bin/x"},
            {},
            "debian-13",
            "services/push.yml.components.server.release.executable",
            "name that as release.package",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused(
    tmp_path: Path, release: dict[str, Any], entry: dict[str, Any], os: str, variable: str, words: str
) -> None:
    found = refused(planned(tmp_path, {"components": {"server": {"release": release}}}, os, **entry))
    assert words in found[variable], found


def test_with_several_contracts_the_version_has_to_be_named(tmp_path: Path) -> None:
    several = {"contracts": [{"versions": ">=1,<2"}, {"versions": ">=2"}]}
    assert (
        "no contract of push covers distribution"
        in refused(planned(tmp_path, several, version="distribution"))["fleet_services.push.version"]
    )


def test_two_services_cannot_have_two_versions_of_a_package_on_one_host(tmp_path: Path) -> None:
    planned(tmp_path)
    second = merge(copy.deepcopy(PACKAGED), {"name": "bell"})
    second["components"]["server"]["ports"] = {"http": {"blue": 8381, "green": 8382}}
    (tmp_path / "bell.yml").write_text(yaml.safe_dump(second))
    both = {"push": ENTRY, "bell": {**ENTRY, "domain": "bell.example.com"}}
    made = plan(one_host(fleet_services=both), tmp_path)
    assert refused(made) == {}
    assert len(made.hosts["web1"]["packaged"]) == 1
    both["bell"]["version"] = "2.12.0"
    found = refused(plan(one_host(fleet_services=both), tmp_path))
    assert "push wants ntfy 2.11.0 on web1" in found["fleet_services.bell.version"]


def test_two_services_cannot_have_one_domain_or_one_port(tmp_path: Path) -> None:
    planned(tmp_path)
    second = merge(copy.deepcopy(PACKAGED), {"name": "bell"})
    (tmp_path / "bell.yml").write_text(yaml.safe_dump(second))
    found = refused(plan(one_host(fleet_services={"push": ENTRY, "bell": ENTRY}), tmp_path))
    assert "push.example.com belongs to push already" in found["fleet_services.bell.domain"]
    assert "port 8281 of web1 has two users" in found["fleet_services.bell.ports.server.http.blue"]


def test_a_database_that_comes_to_the_host_is_nothing_to_a_service_without_one(tmp_path: Path) -> None:
    planned(tmp_path)
    alone = plan(one_host(groups={"postgres": []}, fleet_services={"push": ENTRY}), tmp_path)
    services = {"push": ENTRY, "fluxbase": fluxbase()}
    together = plan(one_host(fleet_services=services), tmp_path)
    component = {made["service"]: made for made in together.hosts["web1"]["components"]}["push"]
    assert component == alone.hosts["web1"]["components"][0]


def test_a_command_has_the_slot_s_own_ports(tmp_path: Path) -> None:
    words = ["{executable}", "--at={listen}:{port.http}", "--slot", "{slot}", "100% $5", "{domain}"]
    component = planned(tmp_path, {"components": {"server": {"command": words}}}).hosts["web1"]["components"][0]
    assert component["command"] == [
        "{executable}",
        "--at=127.0.0.1:8281",
        "--slot",
        "blue",
        "100%% $$5",
        "push.example.com",
    ]


@pytest.mark.parametrize(
    ("component", "key", "words"),
    [
        ({"command": ["{executable}", "{secret.TOKEN}"]}, "command", "every user of the host sees"),
        ({"command": ["{executable}", "{port.admin}"]}, "command", "Take one of: {port.http}"),
    ],
    ids=["secret", "port"],
)
def test_what_a_command_cannot_have(tmp_path: Path, component: dict[str, Any], key: str, words: str) -> None:
    found = refused(planned(tmp_path, {"components": {"server": component}}))
    assert words in found[f"services/push.yml.components.server.{key}"]


def test_a_configuration_file_is_each_slot_s_own(tmp_path: Path) -> None:
    config = {"path": "/etc/push/push.yml", "format": "yaml", "content": {"listen": ":{port.http}", "as": "{slot}"}}
    component = planned(tmp_path, {"components": {"server": {"config": config}}}).hosts["web1"]["components"][0]
    assert component["config"]["content"] == {"listen": ":8281", "as": "blue"}


def test_the_example_is_planned_as_it_stands() -> None:
    services = yaml.safe_load((EXAMPLE / "inventory" / "group_vars" / "all.yml").read_text())["fleet_services"]
    services["miniflux"]["secrets"] = {
        "MINIFLUX_DATABASE_PASSWORD": "x7Kq2mWn9Rt4Lp8Zv3Bc6Yd1Hf5",
        "MINIFLUX_ADMIN_PASSWORD": "x7Kq2mWn9Rt4Lp8Zv3Bc6Yd1Hf5",
    }
    made = plan(one_host(fleet_services=services), EXAMPLE / "services")
    assert refused(made) == {}
    assert [pool["name"] for pool in made.hosts["web1"]["pooler"]["pools"]] == ["miniflux"]
