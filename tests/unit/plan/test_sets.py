"""What is expected on a host, by the names that the roles give their sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.sets import SETS, sets
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.slices import ROLES

from .fixtures import ROOT, one_host, plan, three_tiers

HARDENING = ("hardening", "hardening-audit")
SLOTS = ("fluxbase-server@blue", "fluxbase-server@green")
# One for each slot, in a loop.
PATTERNS = {"{{ __service_slot | selfhost.fleet.component_set }}": ("*@blue", "*@green")}


def _names(node: Any) -> Iterator[str]:
    """Names of every config_set below a node, inside blocks too. The module admins holds a set of its own."""
    if isinstance(node, list):
        for item in node:
            yield from _names(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "selfhost.fleet.config_set":
                yield from PATTERNS.get(value["name"], (value["name"],))
            elif key == "selfhost.fleet.admins":
                yield "admins"
            else:
                yield from _names(value)


def _in_role(role: Path) -> list[str]:
    return [name for path in sorted(role.glob("tasks/*.yml")) for name in _names(yaml.safe_load(path.read_text()))]


def test_the_names_are_those_of_the_roles() -> None:
    found = {role.name: _in_role(role) for role in (ROOT / "roles").iterdir() if (role / "tasks").is_dir()}
    made = {role: sorted(names) for role, names in found.items() if names}
    assert made == {role: sorted(names) for role, names in SETS.items() if names}, "add it to plan/sets.py"


def test_the_order_is_that_of_the_site() -> None:
    assert tuple(SETS) == ROLES


def test_a_host_keeps_what_its_roles_make() -> None:
    everything = plan(one_host(fleet_certificates={"mode": "acme"})).hosts["web1"]["sets"]
    assert everything["keep"] == [*(name for name in everything["among"] if "*" not in name), *SLOTS]
    hosts = plan(three_tiers()).hosts
    assert hosts["app1"]["sets"]["keep"] == [
        "baseline",
        "time",
        "admins",
        "ssh",
        *HARDENING,
        "firewall",
        "bans",
        "pooler",
        "service-users",
        "service",
        *SLOTS,
    ]
    assert hosts["edge1"]["sets"]["keep"] == [
        "baseline",
        "time",
        "admins",
        "ssh",
        *HARDENING,
        "firewall",
        "bans",
        "edge",
    ]
    assert hosts["db2"]["sets"]["keep"] == ["baseline", "time", "admins", "ssh", *HARDENING, "firewall", "bans"]
    assert {tuple(host["sets"]["among"]) for host in hosts.values()} == {tuple(everything["among"])}


def test_a_host_without_roles_keeps_nothing() -> None:
    assert sets([], [], [])["keep"] == []


def test_the_set_of_an_item_that_is_switched_off_goes() -> None:
    assert sets(["baseline", "hardening"], ["audit"], [])["keep"] == ["baseline", "hardening", "hardening-audit"]
