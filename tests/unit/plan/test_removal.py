"""The fleet without a service: what is left of the plan, and what the service alone may have left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from ansible_collections.selfhost.fleet.plugins.filter.maintenance import removal_text
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import Definitions
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Finding
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Inventory
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.removal import Removal, removal

from .fixtures import CHECKSUM, SERVICES, fluxbase, one_host, plan, three_tiers

NOTES = {
    "name": "notes",
    "description": "for a test",
    "components": {
        "web": {
            "user": "notes",
            "ports": {"http": {"blue": 8181, "green": 8182}},
            "state": [{"path": "/var/lib/notes/files"}, {"path": "/srv/notes"}, {"path": "/var/lib/fluxbase/shared"}],
        }
    },
    "routes": [{"path": "/", "kind": "http"}],
    "contracts": [{"versions": ">=1"}, {"versions": ">=0,<1", "components": {"old": {"user": "notes-old"}}}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "notes.yml").write_text(yaml.safe_dump(NOTES))
    return tmp_path


def of(
    inventory: Inventory, service: str, *folders: Path, delete_data: str = "", undefined: Sequence[Finding] = ()
) -> Removal:
    definitions = Definitions([SERVICES, *folders], SERVICES / "schema" / "definition.schema.json")
    schema = json.loads((SERVICES / "schema" / "inventory.schema.json").read_text())
    return removal(inventory, definitions, schema, undefined, service=service, delete_data=delete_data)


def two() -> Inventory:
    notes = {
        "version": "1.0",
        "domain": "notes.example.com",
        "hosts": "app",
        "release": {"source": "/notes", "checksum": CHECKSUM},
    }
    return one_host(fleet_services={"fluxbase": fluxbase(), "notes": notes})


def test_what_stays_is_the_plan_without_it(folder: Path) -> None:
    found = of(two(), "notes", folder)
    assert not found.plan.findings, found.plan.findings.text()
    assert found.plan.hosts == plan(one_host(), folder).hosts
    assert found.footprint["in_inventory"] is True


def test_the_last_service_may_go_too() -> None:
    found = of(three_tiers(), "fluxbase")
    assert not found.plan.findings
    app, edge, database = (found.plan.hosts[name] for name in ("app1", "edge1", "db1"))
    assert {"service", "pooler"}.isdisjoint(app["roles"])
    assert app["components"] == []
    assert edge["edge"]["sites"] == []
    assert (database["postgres"]["databases"], database["postgres"]["hba"]) == ([], [])
    assert {rule["port"] for rule in app["firewall"]["inbound"]} == {22}
    assert found.footprint == {
        "service": "fluxbase",
        "in_inventory": True,
        "delete_data": False,
        "components": ["server"],
        "users": ["fluxbase"],
        "state": ["/var/lib/fluxbase"],
        "certificates": ["/etc/selfhost/tls/api.example.com"],
        "databases": ["fluxbase"],
        "roles": ["fluxbase", "fluxbase_rotation"],
    }


def test_one_that_the_inventory_no_longer_has(folder: Path) -> None:
    found = of(one_host(), "notes", folder, delete_data="notes")
    assert found.plan.hosts == plan(one_host(), folder).hosts
    assert (found.footprint["in_inventory"], found.footprint["delete_data"]) == (False, True)
    # Of all versions, whichever it was; what another service has is not its own.
    assert found.footprint["components"] == ["old", "web"]
    assert found.footprint["users"] == ["notes", "notes-old"]
    assert found.footprint["state"] == ["/srv/notes", "/var/lib/notes"]
    assert (found.footprint["databases"], found.footprint["certificates"]) == ([], [])


def test_what_another_service_uses_stays(folder: Path) -> None:
    inventory = two()
    services = inventory.services
    services["notes"]["domain"] = "api.example.com"
    found = of(one_host(fleet_services=services), "notes", folder)
    assert found.footprint["certificates"] == []
    assert "/var/lib/fluxbase/shared" not in found.footprint["state"]


def test_its_own_names_are_the_inventorys() -> None:
    entry = fluxbase(database={"name": "backend", "user": "backend"}, domain="b.example.com")
    found = of(one_host(fleet_services={"fluxbase": entry}), "fluxbase")
    assert found.footprint["databases"] == ["backend"]
    assert found.footprint["roles"] == ["backend", "backend_rotation"]
    assert found.footprint["certificates"] == ["/etc/selfhost/tls/b.example.com"]


@pytest.mark.parametrize(
    ("service", "delete_data", "variable", "words"),
    [
        ("", "", "service", "is no name of a service"),
        ("../etc", "", "service", "is no name of a service"),
        ("postgresql", "", "service", "there is no definition of a service postgresql"),
        ("fluxbase", "Fluxbase", "delete_data", "is 'Fluxbase', and the service is 'fluxbase'"),
        ("fluxbase", "true", "delete_data", "is 'true'"),
    ],
)
def test_anything_else_is_refused_before_any_host_is_touched(
    service: str, delete_data: str, variable: str, words: str
) -> None:
    found = of(one_host(), service, delete_data=delete_data)
    (finding,) = found.plan.findings.items
    assert finding.variable == variable
    assert words in finding.problem
    assert found.plan.hosts == found.footprint == {}


def test_what_is_wrong_with_it_does_not_keep_it_from_going() -> None:
    """Its secrets are gone already, say."""
    undefined = [Finding("fleet_services.fluxbase.secrets.A", "cannot be filled in", "Define it")]
    broken = one_host(fleet_services={"fluxbase": {"version": "1"}})
    assert not of(broken, "fluxbase", undefined=undefined).plan.findings


def test_what_is_wrong_with_the_others_does(folder: Path) -> None:
    inventory = two()
    inventory.services["fluxbase"].pop("domain")
    assert of(inventory, "notes", folder).plan.findings


# What the operator is told

GOING = {"service": "fluxbase", "in_inventory": True, "delete_data": False}
HOSTS = [
    {
        "inventory_hostname": "app1",
        "leftovers": {
            "removed": ["/opt/fluxbase"],
            "kept": [{"what": "/var/lib/fluxbase", "reason": "data", "command": "rm -r /var/lib/fluxbase"}],
        },
    },
    {"inventory_hostname": "db1", "database": {"statements": ["DROP DATABASE fluxbase", "DROP ROLE fluxbase"]}},
]


def test_what_is_kept_is_told_with_its_place_and_what_is_left_to_do() -> None:
    lines = removal_text(HOSTS, GOING, False)
    assert lines[:4] == [
        "app1: removed: /opt/fluxbase",
        "app1: kept: /var/lib/fluxbase (data). To delete it: rm -r /var/lib/fluxbase",
        "db1: kept: database fluxbase (data). To delete it: -e delete_data=fluxbase",
        "db1: kept: database role fluxbase (data). To delete it: -e delete_data=fluxbase",
    ]
    assert "take fleet_services.fluxbase out" in lines[4]


def test_what_is_deleted_is_told_too() -> None:
    lines = removal_text(HOSTS, {**GOING, "delete_data": True, "in_inventory": False}, True)
    assert "db1: would be removed: DROP DATABASE fluxbase" in lines
    assert not [line for line in lines if "inventory" in line]
    assert removal_text([], {**GOING, "in_inventory": False}, False) == ["Nothing of fluxbase is left on any host."]
