"""Items of the hardening by host, and the night in which the fleet's hosts reboot one after the other."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.hardening import ITEMS, hardening
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Host, Inventory

from .fixtures import one_host, plan


def switched(**items: Any) -> Inventory:
    inventory = one_host()
    hosts = {name: dataclasses.replace(host, hardening=items) for name, host in inventory.hosts.items()}
    return dataclasses.replace(inventory, hosts=hosts)


def test_everything_is_on_by_default() -> None:
    web1 = plan(one_host()).hosts["web1"]
    assert web1["hardening"]["active"] == list(ITEMS)
    assert {"unattended-upgrades", "needrestart", "libpam-passwdqc", "apparmor"} <= set(web1["packages"])


def test_an_item_is_switched_off_by_name_with_its_packages_and_its_set() -> None:
    web1 = plan(switched(updates=False, audit=False, banner=True)).hosts["web1"]
    assert web1["hardening"]["active"] == [item for item in ITEMS if item not in ("updates", "audit")]
    assert not {"unattended-upgrades", "needrestart"} & set(web1["packages"])
    assert "hardening-audit" in web1["sets"]["among"]
    assert "hardening-audit" not in web1["sets"]["keep"]


@pytest.mark.parametrize(
    ("items", "variable", "problem"),
    [
        ({"baner": False}, "hosts.web1.fleet_hardening.baner", "is no item of the hardening"),
        ({"banner": "off"}, "hosts.web1.fleet_hardening.banner", "is 'off'"),
    ],
    ids=["name", "value"],
)
def test_a_mistake_is_a_finding(items: dict[str, Any], variable: str, problem: str) -> None:
    (finding,) = plan(switched(**items)).findings.items
    assert (finding.variable, finding.problem) == (variable, problem)


def reboots(count: int, **window: Any) -> list[tuple[str, str]]:
    hosts = {f"h{number:02}": Host(name=f"h{number:02}", address="") for number in range(count)}
    inventory = Inventory(hosts=hosts, groups={}, variables={"fleet_reboot_window": window} if window else {})
    found = [hardening(inventory, host) for host in hosts.values()]
    return [(entry["upgrade_at"], entry["reboot_at"]) for entry in found]


def test_reboots_are_spread_over_the_window() -> None:
    assert reboots(1) == [("02:00", "03:00")]
    assert [reboot for _upgrade, reboot in reboots(4)] == ["03:00", "03:30", "04:00", "04:30"]
    assert reboots(2, start="23:45", minutes=30) == [("22:45", "23:45"), ("23:00", "00:00")]


def test_a_window_may_be_given_in_part() -> None:
    assert reboots(1, start="00:30") == [("23:30", "00:30")]
    assert [reboot for _upgrade, reboot in reboots(2, minutes=10)] == ["03:00", "03:05"]
