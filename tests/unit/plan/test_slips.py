"""Slips of YAML, such as a key left empty: findings with the variable, together with all others, and never an exception."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.compute import compute
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import Definitions
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Finding, Findings
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.hosts import read_host
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Data
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.removal import removal

from .fixtures import SERVICES, fluxbase, one_host, plan

SCHEMA = json.loads((SERVICES / "schema" / "inventory.schema.json").read_text())
# One of each type; none is the text of an address, a name or a number.
VALUES: list[Any] = [None, True, 7.5, "Ä?", [None], [["x"]], {"x": None}]


class ReadOnce(Definitions):
    """Reading a definition takes longer than all the rest, and there are hundreds of plans here."""

    def load(self, name: str, findings: Findings) -> Data | None:
        if name not in self._read:
            self._read[name] = super().load(name, findings)
        return self._read[name]

    _read: ClassVar[dict[str, Data | None]] = {}


DEFINITIONS = ReadOnce([SERVICES], SERVICES / "schema" / "definition.schema.json")


def places(schema: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in the inventory that the schema knows; what is called as one likes is called x, and a list's item is its first."""
    schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if path:
        yield path
    for part in [schema, *schema.get("anyOf", [])]:
        for key, below in part.get("properties", {}).items():
            yield from places(below, (*path, key))
        if isinstance(part.get("additionalProperties"), dict):
            name = {("fleet_services",): "fluxbase"}.get(path, "x")  # type: ignore[call-overload]
            yield from places(part["additionalProperties"], (*path, name))
        if isinstance(part.get("items"), dict):
            yield from places(part["items"], (*path, 0))


PLACES = list(places(SCHEMA))


def with_value(path: tuple[str | int, ...], value: Any) -> Any:
    """The good inventory with one value at a path."""
    variables: Any = {"fleet_services": {"fluxbase": fluxbase(domain="nonsense")}}
    node = variables
    for part, following in zip(path, path[1:], strict=False):
        if isinstance(node, list):
            node[:] = node or [{} if isinstance(following, str) else []]
            node = node[0]
        else:
            kind = dict if isinstance(following, str) else list
            if not isinstance(node.get(part), kind):
                node[part] = kind()
            node = node[part]
    if isinstance(node, list):
        node.append(value)
    else:
        node[path[-1]] = value
    return one_host(**copy.deepcopy(variables))


def test_every_place_is_known() -> None:
    texts = {".".join(map(str, path)) for path in PLACES}
    assert {"fleet_services", "fleet_services.fluxbase.egress.0", "fleet_firewall.bans.ssh.failures"} <= texts
    assert len(texts) > 60


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_a_wrong_type_anywhere(path: tuple[str | int, ...]) -> None:
    from jsonschema import Draft202012Validator

    for value in VALUES:
        inventory = with_value(path, value)
        mistakes = [
            ".".join(map(str, error.absolute_path))
            for error in Draft202012Validator(SCHEMA).iter_errors(inventory.variables)
        ]
        variables = {finding.variable for finding in compute(inventory, DEFINITIONS, SCHEMA).findings.items}
        for mistake in mistakes:
            assert any(variable == mistake or variable.startswith(f"{mistake}.") for variable in variables), value
        # The rest is looked at all the same, where it is left.
        if "fleet_services" not in path or path[2:] not in ((), ("domain",), ("version",)) and len(path) > 2:
            assert "fleet_services.fluxbase.domain" in variables, value
        # And the other playbooks' plan does not fall over it either.
        removal(inventory, DEFINITIONS, SCHEMA, (), service="fluxbase", delete_data="")


@pytest.mark.parametrize(
    "key", ["settings", "release", "companions", "ports", "egress", "database", "secrets", "hosts"]
)
def test_a_key_left_empty(key: str) -> None:
    found = {
        item.variable: item
        for item in plan(one_host(fleet_services={"fluxbase": {**fluxbase(), key: None}})).findings.items
    }
    finding = found[f"fleet_services.fluxbase.{key}"]
    assert (finding.problem, finding.remedy) == ("is empty", "Fill it in, or take the line out")


@pytest.mark.parametrize(
    ("variables", "variable", "words"),
    [
        ({"fleet_services": ["fluxbase"]}, "fleet_services", "is a list, and has to be a mapping"),
        ({"fleet_services": {"fluxbase": None}}, "fleet_services.fluxbase", "is empty"),
        ({"fleet_services": {"fluxbase": "2026.3.6"}}, "fleet_services.fluxbase", "is a text, and has to be a mapping"),
        ({"fleet_postgres": {"max_connections": "many"}}, "fleet_postgres.max_connections", "has to be a whole number"),
        ({"fleet_admins": "alice"}, "fleet_admins", "is a text, and has to be a list"),
        ({"fleet_certificates": "acme"}, "fleet_certificates", "is a text, and has to be a mapping"),
        ({"fleet_ssh_sources": "any"}, "fleet_ssh_sources", "is a text, and has to be a list"),
    ],
)
def test_slips_of_the_fleet(variables: dict[str, Any], variable: str, words: str) -> None:
    (finding,) = plan(one_host(**variables)).findings.items
    assert finding.variable == variable and words in finding.problem


def test_a_version_without_quotes_is_understood_and_refused() -> None:
    entry = fluxbase(version=2026.1, colour="red", domain="nope")
    found = {item.variable: item for item in plan(one_host(fleet_services={"fluxbase": entry})).findings.items}
    assert set(found) == {f"fleet_services.fluxbase.{key}" for key in ("version", "colour", "domain")}
    assert found["fleet_services.fluxbase.version"].remedy == "Put it in quotes"


def test_no_slip_prints_a_secret() -> None:
    secret = "b7f3e91c5a2d84f06e"
    for entry in ([{"secrets": secret}], {"fluxbase": [secret]}, {"fluxbase": {"certificate": {"key": [secret]}}}):
        assert secret not in plan(one_host(fleet_services=entry)).findings.text()


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"fleet_hardening": True}, "fleet_hardening"),
        ({"fleet_hardening": "off"}, "fleet_hardening"),
        ({"ansible_port": "many"}, "ansible_port"),
        ({"ansible_port": 70000}, "ansible_port"),
        ({"ansible_port": 2222, "fleet_ssh_port": "ssh"}, "fleet_ssh_port"),
        ({"fleet_architecture": "x86_64"}, "fleet_architecture"),
    ],
)
def test_slips_of_a_host(variables: dict[str, Any], key: str) -> None:
    findings: list[Finding] = []
    assert read_host("web1", variables, findings).ssh_port == 22
    assert [finding.variable for finding in findings] == [f"hosts.web1.{key}"]


def test_a_good_host() -> None:
    findings: list[Finding] = []
    behind = read_host("web1", {"ansible_port": 10022, "fleet_ssh_port": 22}, findings)
    assert (behind.ssh_port, findings) == (22, [])
    host = read_host("web1", {"ansible_port": "2222", "fleet_hardening": {"banner": False}}, findings)
    assert (host.ssh_port, host.hardening, host.address, findings) == (2222, {"banner": False}, "web1", [])


def test_a_fleet_that_cannot_be_read_is_not_one_without_services() -> None:
    for services in (["fluxbase", "other"], {"fluxbase": fluxbase(), "other": None}):
        found = removal(one_host(fleet_services=services), DEFINITIONS, SCHEMA, (), service="fluxbase", delete_data="")
        assert found.plan.findings and not found.footprint
