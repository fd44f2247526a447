"""The detour that a secret changes by: another slot and another login beside those at home."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from .fixtures import SECRETS, fluxbase, one_host, plan, three_tiers

PASSWORD = "fluxbase.FLUXBASE_DATABASE_PASSWORD"
JWT = "fluxbase.FLUXBASE_AUTH_JWT_SECRET"


def detour(secret: str = PASSWORD, inventory: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The slices at home, and the detour."""
    made = plan(inventory or one_host(), rotate=secret)
    assert made.findings.items == []
    return made.hosts, made.detour


def test_an_ordinary_plan_has_none_and_a_detour_leaves_it_as_it_is() -> None:
    ordinary = plan(one_host())
    assert ordinary.detour == {}
    assert detour()[0] == ordinary.hosts


def test_the_slot_at_home_stays_as_it_is() -> None:
    home, found = detour()
    assert home["web1"]["standins"] == []
    assert found["hosts"]["web1"]["components"] == home["web1"]["components"]
    assert found["standin_sets"] == ["fluxbase-server@green"]


def test_the_stand_in_is_the_service_in_its_other_slot_with_the_new_value_and_a_login_of_its_own() -> None:
    home, found = detour()
    (standin,) = found["hosts"]["web1"]["standins"]
    (own,) = home["web1"]["components"]
    assert (standin["slot"], standin["serving"]) == ("green", "blue")
    assert standin["environment"] == {
        **own["environment"],
        "FLUXBASE_DATABASE_USER": "fluxbase_rotation",
        "FLUXBASE_SERVER_ADDRESS": "127.0.0.1:8082",
        "FLUXBASE_BASE_URL": "http://127.0.0.1:8082",
        "FLUXBASE_METRICS_PORT": "9092",
    }
    assert standin["secrets"]["FLUXBASE_DATABASE_PASSWORD"] == "{secret.FLUXBASE_DATABASE_PASSWORD__NEXT}"
    assert standin["secrets"]["FLUXBASE_AUTH_JWT_SECRET"] == "{secret.FLUXBASE_AUTH_JWT_SECRET}"
    assert standin["probe"]["url"] == "http://127.0.0.1:8082/health"


def test_it_stands_in_for_the_slot_that_serves_on_its_host() -> None:
    made = plan(three_tiers(), rotate=JWT, live={"fluxbase": {"app1": "green", "app3": "blue"}})
    assert made.findings.items == []
    found = {name: [entry["slot"] for entry in own["standins"]] for name, own in made.detour["hosts"].items()}
    assert {name: slots for name, slots in found.items() if slots} == {
        "app1": ["blue"],
        "app2": ["green"],
        "app3": ["green"],
    }
    assert made.detour["drain"]["app1"] == {"home": [8082], "standin": [8081]}


def test_an_address_with_the_password_in_it_has_the_other_login_as_well() -> None:
    old = fluxbase(
        version="0.9.4",
        release={"source": "/x", "checksum": "sha256:" + "ab" * 32},
        secrets={
            "FLUXBASE_DATABASE_PASSWORD": SECRETS["FLUXBASE_DATABASE_PASSWORD"],
            "FLUXBASE_JWT_SECRET": SECRETS["FLUXBASE_AUTH_JWT_SECRET"],
        },
    )
    _home, found = detour(inventory=one_host(fleet_services={"fluxbase": old}))
    address = found["hosts"]["web1"]["standins"][0]["secrets"]["DATABASE_URL"]
    assert address.startswith("postgresql://fluxbase_rotation:{secret.FLUXBASE_DATABASE_PASSWORD__NEXT}@")


def test_the_bridge_becomes_the_services_role_and_both_may_log_in() -> None:
    home, found = detour()
    postgres = found["hosts"]["web1"]["postgres"]
    assert postgres["roles"][:-1] == home["web1"]["postgres"]["roles"]
    assert postgres["roles"][-1] == {
        "name": "fluxbase_rotation",
        "attributes": ["LOGIN"],
        "member_of": ["fluxbase"],
        "settings": {"role": "fluxbase"},
        "secret": {"service": "fluxbase", "name": "FLUXBASE_DATABASE_PASSWORD__NEXT"},
    }
    assert {line["user"] for line in postgres["hba"]} == {"fluxbase", "fluxbase_rotation"}


def test_the_pooler_needs_no_restart_for_the_bridge() -> None:
    home, found = detour()
    before, after = home["web1"]["pooler"], found["hosts"]["web1"]["pooler"]
    assert [pool["user"] for pool in after["pools"]] == ["fluxbase", "fluxbase_rotation"]
    # The limit of open files follows from the sizes, and a new one is a restart.
    assert sum(pool["size"] for pool in after["pools"]) == sum(pool["size"] for pool in before["pools"])
    assert {pool["name"] for pool in after["pools"]} == {"fluxbase"}


def test_another_secret_needs_no_bridge() -> None:
    home, found = detour(JWT)
    assert found["bridge"] is None
    for part in ("postgres", "pooler"):
        assert found["hosts"]["web1"][part] == home["web1"][part]


def test_every_edge_sends_to_the_stand_ins_and_nothing_else_changes() -> None:
    home, found = detour(inventory=three_tiers())
    for name, slice_ in found["hosts"].items():
        before = copy.deepcopy(home[name])
        for site in (before["edge"] or {"sites": []})["sites"]:
            for server in site["upstreams"][0]["servers"]:
                assert server["port"] == 8081
                server["port"] = 8082
        assert slice_["edge"] == before["edge"]
        assert [
            each for each in slice_ if slice_[each] != before[each] and each not in ("standins", "postgres", "pooler")
        ] == []
    assert found["drain"] == {name: {"home": [8081], "standin": [8082]} for name in ("app1", "app2", "app3")}


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("fluxbase.FLUXBASE_ENCRYPTION_KEY", "can be read with no other key"),
        ("fluxbase.NOSUCH", "is no secret of this fleet"),
        ("nosuch.X", "is no secret of this fleet"),
        ("", "is no secret of this fleet"),
    ],
)
def test_what_cannot_change_like_this_is_a_finding(secret: str, words: str) -> None:
    made = plan(one_host(), rotate=secret)
    assert words in made.findings.text()
    assert made.detour == {}
