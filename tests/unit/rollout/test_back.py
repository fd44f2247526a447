"""Rollbacks, with the database as it is or the copy from before, and what becomes of those that were cut off."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.rollout import _servers, recorded_strategy, shared_traffic

from ..plan.fixtures import fluxbase, one_host, three_tiers
from .said import found, note, one, serving, unfinished


def kept(*ways: tuple[str, str]) -> dict[str, Any]:
    says = serving("2026.3.6", web1="green")
    says["web1"]["fluxbase"] |= {
        "kept": [note("blue", "2026.3.4")],
        "ways_back": [{"present": present, "former": former} for present, former in ways],
    }
    return says


def test_a_rollback_without_a_copy_goes_only_where_the_former_release_is_known_to_start() -> None:
    unknown = found(one_host(), kept(("2026.3.4", "2026.3.6")), "fluxbase", restore="")
    assert "nobody has seen 2026.3.4 start on the database that 2026.3.6 has left on web1" in unknown.findings.text()
    for says, options in (
        (kept(("2026.3.6", "2026.3.4")), {"restore": ""}),
        (kept(), {"accepted": "fluxbase"}),
        (kept(), {"restore": "20260101-000000-2026.3.6"}),
    ):
        (rollback,) = found(one_host(), says, "fluxbase", **options).items
        phases = [step["phase"] for step in rollback["steps"]]
        assert ("swap" in phases) == bool(options.get("restore"))


def test_what_runs_alone_is_stopped_before_the_kept_release_starts() -> None:
    service = fluxbase(rollout={"strategy": "restart"})
    (rollback,) = found(one_host(fleet_services={"fluxbase": service}), kept(), "fluxbase", accepted="fluxbase").items
    assert [step["phase"] for step in rollback["steps"]] == ["stop", "revive", "traffic", "adopt", "settle"]
    # Cut off: whichever of the two ran, the kept one ends before the other one starts.
    says = kept()
    says["web1"]["fluxbase"]["unfinished"] = unfinished("2026.3.4", "rollback")
    rollout = one(one_host(fleet_services={"fluxbase": service}), says)
    assert [step["phase"] for step in rollout["steps"]] == ["halt", "revive", "traffic", "adopt"]


def test_a_restore_that_was_cut_off_is_finished_or_taken_back_and_nothing_else_is_begun() -> None:
    says = kept(("2026.3.6", "2026.3.4"))
    says["web1"]["fluxbase"]["unfinished"] = unfinished("2026.3.4", "restore")
    # The version that serves is wanted: everything as it was, the database before the slot that works with it.
    rollout = one(one_host(), says)
    names = [step["name"] for step in rollout["steps"]]
    assert names == [
        "halt web1",
        "swap_back web1",
        "resume web1",
        "traffic web1 100 %",
        "readopt web1",
        "forget web1",
    ]
    assert (rollout["kind"], rollout["to"], rollout["copy"]["cut_off"]) == ("rollback", rollout["from"], "x")
    assert recorded_strategy(rollout) == "rollback"
    servers = _servers(shared_traffic(rollout, "web1", rollout["steps"][3]["shares"]), "fluxbase")
    assert [server["port"] for each in servers.values() for server in each] == [8082]
    # The same again.
    (again,) = found(one_host(), says, "fluxbase", restore="20260101-000000-2026.3.6").items
    assert [step["phase"] for step in again["steps"]][:3] == ["unpack", "stop", "swap"]
    assert recorded_strategy(again) == "restore"
    # All else would meet a database of either kind.
    older = one_host(fleet_services={"fluxbase": fluxbase(version="2026.3.4")})
    for made in (found(one_host(), says, "fluxbase", restore=""), found(older, says)):
        assert "was cut off on web1" in made.findings.text() and "which takes it back" in made.findings.text()
    # With the other version serving it had but to be written down.
    says["web1"]["fluxbase"] |= {"version": "2026.3.4", "slot": "blue", "notes": [note("blue", "2026.3.4")]}
    says["web1"]["fluxbase"]["kept"] = [note("green", "2026.3.6")]
    assert found(one_host(), says).findings.items == []


def gone_back(strategy: str, *hosts: str) -> dict[str, Any]:
    """Three hosts on which a rollback from 2026.3.6 has no end; these had gone back when it was cut off."""
    says = {}
    for host in ("app1", "app2", "app3"):
        notes = [note("green", "2026.3.6"), note("blue", "2026.3.4")]
        serves, idle = reversed(notes) if host in hosts else notes
        says[host] = {
            "fluxbase": {
                "slot": serves["slot"],
                "version": serves["version"],
                "notes": [serves],
                "kept": [idle],
                "unfinished": unfinished("2026.3.4", strategy),
                "ways_back": [{"present": "2026.3.6", "former": "2026.3.4"}],
            }
        }
    return says


def ports(rollout: dict[str, Any], share: int) -> set[int]:
    """Where an edge sends requests to, with this share on the new slots."""
    servers = _servers(shared_traffic(rollout, "edge1", dict.fromkeys(rollout["hosts"], share)), "fluxbase")
    return {server["port"] for each in servers.values() for server in each}


@pytest.mark.parametrize("hosts", [("app1",), ("app2", "app3"), ("app1", "app2", "app3")])
@pytest.mark.parametrize(("strategy", "restore"), [("rollback", ""), ("restore", "20260101-000000-2026.3.6")])
def test_the_same_rollback_again_takes_all_hosts_to_the_same_version(
    strategy: str, restore: str, hosts: tuple[str, ...]
) -> None:
    (again,) = found(three_tiers(), gone_back(strategy, *hosts), "fluxbase", restore=restore).items
    (whole,) = found(three_tiers(), gone_back(strategy), "fluxbase", restore=restore).items
    assert again == whole
    assert {entry["version"] for entry in again["to"].values()} == {"2026.3.4"}
    assert {entry["slot"] for entry in again["from"].values()} == {"green"}
    assert (ports(again, 0), ports(again, 100)) == ({8081}, {8082})


@pytest.mark.parametrize("hosts", [("app1",), ("app2", "app3")])
def test_a_rollback_of_which_some_hosts_had_gone_back_is_taken_back_on_all(hosts: tuple[str, ...]) -> None:
    rollout = one(three_tiers(), gone_back("rollback", *hosts))
    every = "app1, app2, app3"
    shares = ", ".join(f"{host} 0 %" for host in ("app1", "app2", "app3"))
    assert [step["name"] for step in rollout["steps"]] == [f"revive {every}", f"traffic {shares}", f"adopt {every}"]
    assert {entry["version"] for entry in rollout["to"].values()} == {"2026.3.6"}
    assert {each["slot"] for notes in rollout["former"].values() for each in notes} == {"green"}
    assert ports(rollout, 0) == {8082}
    restored = one(three_tiers(), gone_back("restore", *hosts))
    assert [step["phase"] for step in restored["steps"]] == [
        "halt",
        "swap_back",
        "resume",
        "traffic",
        "readopt",
        "forget",
    ]
    assert {each["slot"] for notes in restored["present"].values() for each in notes} == {"green"}
    assert ports(restored, 100) == {8082}
    # Another version meets a database of either kind.
    older = three_tiers()
    older.variables["fleet_services"]["fluxbase"]["version"] = "2026.3.5"
    assert "was cut off on" in found(older, gone_back("restore", *hosts)).findings.text()


def test_hosts_that_have_all_gone_back_go_to_another_version_as_any_others() -> None:
    says = gone_back("restore", "app1", "app2", "app3")
    phases = [step["phase"] for step in one(three_tiers(), says)["steps"]]
    assert "install" in phases and "swap_back" not in phases


def test_after_a_refresh_there_is_no_other_release_to_go_back_to() -> None:
    says = kept(("2026.3.6", "2026.3.6"))
    says["web1"]["fluxbase"]["kept"] = [note("blue", "2026.3.6")]
    assert "has kept no other release" in found(one_host(), says, "fluxbase", restore="").findings.text()
