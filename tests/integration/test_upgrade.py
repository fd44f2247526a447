"""Upgrades and rollbacks of a service that is in use: who serves in the end, what users noticed, and what the operator is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from fleetbed.constant import asked_constantly
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.site import SITE, Site, main_pid, psql
from fleetbed.upgrade import (
    NEW,
    OLD,
    ROLLBACK,
    START_TIMEOUT,
    UNITS,
    UPGRADE,
    VARIANTS,
    back,
    killed_in,
    nothing_is_left_of_the_rehearsal,
    refused,
    schema,
    serves_alone,
    slot_that_serves,
    under_load,
    upgradable,
    wants,
)


@pytest.fixture(scope="module")
def site(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that serves the former version."""
    return upgradable(new_host, client, tmp_path_factory.mktemp("upgrade"))


def test_with_nothing_to_do_it_says_so(site: Site) -> None:
    run = site.run(playbook=UPGRADE)
    assert run.changed == []
    assert "nothing to do" in run.of("Say what will be done").result["msg"]


def test_a_part_of_the_fleet_is_refused(site: Site) -> None:
    groups = {name: [site.host] for name in ("edge", "postgres", "fluxbase")}
    options = ["--limit", site.host.name]
    run = site.ansible.playbook(
        UPGRADE, [site.host, site.client], groups=groups, variables=site.variables, options=options, expect_failure=True
    )
    assert f"{site.client.name} would be left out" in run.failed[0].result["msg"]


def test_check_mode_lists_the_steps_and_touches_nothing(site: Site) -> None:
    before, process = site.hashes(), main_pid(site.host, UNITS["blue"])
    run = site.run(playbook=UPGRADE, changes=wants(site, NEW), check=True)
    said = run.of("Say what will be done").result["msg"]
    assert f"fluxbase: {OLD} -> {NEW}, blue_green" in said
    assert f"start {site.host.name}" in said and f"{START_TIMEOUT} s at most" in said
    assert (site.hashes(), main_pid(site.host, UNITS["blue"])) == (before, process)
    assert run.changed == []


def test_users_notice_neither_an_upgrade_nor_a_rollback(site: Site) -> None:
    item = site.add_item()
    rehearsed = {**site.variables["fleet_services"]["fluxbase"]["rollout"], "rehearsal": "auto"}
    run = under_load(site, UPGRADE, wants(site, NEW, rollout=rehearsed))
    said = run.of("Say how it went").result["msg"]
    assert sum("healthy after" in line for line in said) == 2
    serves_alone(site, NEW, "green")
    nothing_is_left_of_the_rehearsal(site.host)
    # Which slot serves is the host's to know: for the inventory that is all as it wants it.
    assert site.run(playbook=SITE, changes=wants(site, NEW)).changed == []
    assert site.run(playbook=UPGRADE, changes=wants(site, NEW)).changed == []
    run = under_load(site, ROLLBACK, wants(site, NEW), options=["-e", "service=fluxbase"])
    assert f"fluxbase {OLD} serves again" in run.of("Say what is left to do").result["msg"]
    serves_alone(site, OLD, "blue")
    # The list that users see has the newest alone.
    assert psql(site.host, f"SELECT count(*) FROM app.items WHERE body = '{item}'") == ["1"]
    assert site.run(playbook=SITE).changed == []
    # And on to the newer one again, which the other slot has kept.
    under_load(site, ROLLBACK, {}, options=["-e", "service=fluxbase"])
    serves_alone(site, NEW, "green")
    back(site)
    serves_alone(site, OLD, "blue")


def test_the_slot_that_serves_comes_back_with_its_host(site: Site) -> None:
    site.run(playbook=UPGRADE, changes=wants(site, NEW))
    slot = slot_that_serves(site)
    site.host.restart()
    site.answers_within(60)
    serves_alone(site, NEW, slot)
    back(site)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        pytest.param(
            "crash-at-start", ["does not start on a copy of this database", "conn closed"], id="crash-at-start"
        ),
        pytest.param("never-healthy", ["was not healthy within", "its last answer: 503"], id="never-healthy"),
        pytest.param("ruinous-migration", ["Failed to run migrations"], id="ruinous-migration"),
        pytest.param(
            "poisonous-migration",
            [f"{OLD} would not start any more on the database that it leaves", "is not unique", "no_way_back=fluxbase"],
            id="poisonous-migration",
        ),
    ],
)
def test_a_rehearsal_refuses_what_would_fail(site: Site, variant: str, words: list[str]) -> None:
    refused(site, variant, "rehearse", *words, rehearsal="auto")


def test_a_release_that_is_refused_leaves_no_extension_behind(site: Site) -> None:
    # From 2026.3.7 on it wants one more of its database, and a companion.
    companion = site.ansible.folder / "pgschema"
    companion.write_text('#!/bin/sh\ntest "$1" = --help && echo "Version: 1.2.3@0abcdef linux/amd64 unknown"\n')
    checksum = f"sha256:{hashlib.sha256(companion.read_bytes()).hexdigest()}"
    pgschema = {"version": "1.2.3", "source": str(companion), "checksum": checksum}
    rehearsed = {**site.variables["fleet_services"]["fluxbase"]["rollout"], "rehearsal": "auto"}
    wanted = wants(site, "2026.3.7", "poisonous-migration", rollout=rehearsed, companions={"pgschema": pgschema})
    slot, before = slot_that_serves(site), schema(site.host)
    run = under_load(site, UPGRADE, wanted, expect_failure=True)
    assert "there would be no way back" in run.failed[-1].result["msg"]
    assert schema(site.host) == before and "postgres_fdw" not in before
    serves_alone(site, OLD, slot)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        pytest.param("crash-at-start", ["conn closed"], id="crash-at-start"),
        pytest.param("never-healthy", ["status 503"], id="never-healthy"),
    ],
)
def test_without_a_rehearsal_the_gate_refuses_it(site: Site, variant: str, words: list[str]) -> None:
    refused(site, variant, "start", *words)


def last_said(site: Site, unit: str, words: str) -> float:
    """When systemd last said it of a unit."""
    read = [
        "journalctl",
        "--unit",
        unit,
        "--output=short-unix",
        "--quiet",
        "--reverse",
        "--lines=1",
        "--grep",
        f"^({words}) ",
    ]
    return float(site.host.root(read).stdout.split()[0])


def test_a_restart_has_never_two_versions_at_once(site: Site) -> None:
    """For programs that cannot bear another one beside them; users wait meanwhile."""
    slot = slot_that_serves(site)
    other = "green" if slot == "blue" else "blue"
    changes = wants(site, NEW, rollout={"strategy": "restart", "soak": 1, "rehearsal": "off"})
    site.run(playbook=UPGRADE, changes=changes)
    serves_alone(site, NEW, other)
    assert last_said(site, UNITS[slot], "Stopped") <= last_said(site, UNITS[other], "Starting|Started")
    # The way back, too, cut off and taken back, and whole.
    options = ["-e", "service=fluxbase", "-e", "no_way_back=fluxbase"]
    killed_in(site, "revive", changes, playbook=ROLLBACK, options=options)
    both = site.host.root(["systemctl", "is-active", *UNITS.values()], check=False).stdout.split()
    assert both.count("active") < 2
    site.run(playbook=UPGRADE, changes=changes)
    serves_alone(site, NEW, other)
    assert last_said(site, UNITS[slot], "Stopped") <= last_said(site, UNITS[other], "Starting|Started")
    site.run(playbook=ROLLBACK, changes=changes, options=options)
    serves_alone(site, OLD, slot)
    assert last_said(site, UNITS[other], "Stopped") <= last_said(site, UNITS[slot], "Starting|Started")


CANARY = {"strategy": "canary", "shares": [50], "observe": 15, "soak": 1, "drain": 3}


def test_a_canary_that_does_well_gets_all_by_limits_of_ones_own(site: Site) -> None:
    canary = {"latency_floor": 2000, "min_requests": 120}
    run = under_load(site, UPGRADE, wants(site, NEW, rollout={**CANARY, "canary": canary}))
    seen = run.of("See by the log of this edge that its users fare no worse with the new version").result
    assert seen["latency_limit_ms"] >= 2000
    assert min(seen[side]["requests"] for side in ("old", "new")) >= 120
    serves_alone(site, NEW, slot_that_serves(site))
    back(site)


def test_a_canary_with_errors_is_taken_back_before_all_meet_them(site: Site) -> None:
    slot = slot_that_serves(site)
    authority = (site.ansible.folder / "ca" / "ca.pem").read_text()
    changes = wants(site, VARIANTS["bad-answers"], "bad-answers", rollout=CANARY)
    with asked_constantly(site.client, site.host.address, authority) as answers:
        run = site.run(playbook=UPGRADE, changes=changes, expect_failure=True)
    message = run.failed[-1].result["msg"]
    assert f"It failed in: observe {site.host.name} 50 %" in message and "error" in message
    serves_alone(site, OLD, slot)
    assert {found for _begun, found in answers} == {200, 201, 500}


def test_a_wrong_checksum_and_a_version_without_contract_start_nothing(site: Site) -> None:
    slot = slot_that_serves(site)
    wrong = wants(site, NEW)
    wrong["fleet_services"]["fluxbase"]["release"] = {
        **wrong["fleet_services"]["fluxbase"]["release"],
        "checksum": f"sha256:{'0' * 64}",
    }
    wrong["fleet_services"]["fluxbase"]["version"] = "2026.2.9"
    run = under_load(site, UPGRADE, wrong, expect_failure=True)
    message = run.failed[-1].result["msg"]
    assert f"It failed in: install {site.host.name}" in message and "checksum" in message
    serves_alone(site, OLD, slot)
    unknown = site.run(playbook=UPGRADE, changes=wants(site, NEW, version="2030.1"), expect_failure=True)
    assert "no contract of fluxbase covers 2030.1" in unknown.failed[0].result["msg"]
    serves_alone(site, OLD, slot)


def test_an_edge_that_refuses_its_configuration_takes_everything_back(site: Site) -> None:
    slot = slot_that_serves(site)
    site.host.put("/etc/nginx/modules-enabled/99-broken.conf", "nonsense;\n")
    try:
        run = under_load(site, UPGRADE, wants(site, NEW), expect_failure=True)
    finally:
        site.host.root("rm /etc/nginx/modules-enabled/99-broken.conf")
    message = run.failed[-1].result["msg"]
    assert f"It failed in: traffic {site.host.name} 100 %" in message and "nonsense" in message
    serves_alone(site, OLD, slot)


def test_a_rollback_without_a_kept_release_says_so(site: Site) -> None:
    # The failed ones have taken the place of what the idle slot had kept.
    run = site.run(playbook=ROLLBACK, options=["-e", "service=fluxbase"], expect_failure=True)
    assert "has kept no other release of fluxbase" in run.failed[0].result["msg"]


def test_the_hosts_remember_who_did_what(site: Site) -> None:
    run = site.run(playbook=REPOSITORY / "playbooks" / "status.yml", options=["-e", "history=true"])
    lines = run.of("Print it").result["msg"]
    outcomes = [line for line in lines if f"fluxbase {OLD} -> {NEW}" in line]
    assert any("rolled_back" in line for line in outcomes) and any(": done (" in line for line in outcomes)
    assert any(line.startswith(f"  finish {site.host.name}: done (") for line in lines)
    assert any(line.startswith(f"  copy {site.host.name}: done (") and "sha256:" in line for line in lines)
    # The lock is nobody's.
    assert site.host.root("ls /var/lib/selfhost/fleet.lock", check=False).returncode != 0


def killed_after_the_traffic_has_moved(site: Site, number: str) -> None:
    site.host.root("touch /run/before")
    running = site.start(playbook=UPGRADE, changes=wants(site, number))
    records = f"find /var/lib/selfhost/rollouts/fluxbase -newer /run/before -name '*-{number}.json'"
    look = f"until {records} | xargs -r grep -l '\"traffic ' | grep -q .; do sleep 0.2; done"
    site.host.root(["timeout", "120", "sh", "-c", look])
    running.kill()
    assert site.status("/health") == 200


def test_a_controller_that_is_killed_leaves_a_rollout_that_the_next_one_finishes_or_takes_back(site: Site) -> None:
    slot = slot_that_serves(site)
    other = "green" if slot == "blue" else "blue"
    killed_after_the_traffic_has_moved(site, NEW)
    waits = site.run(playbook=SITE, changes=wants(site, NEW), expect_failure=True)
    assert "A rollout of fluxbase was begun" in waits.failed[0].result["msg"]
    under_load(site, UPGRADE, wants(site, NEW))
    serves_alone(site, NEW, other)
    killed_after_the_traffic_has_moved(site, OLD)
    under_load(site, UPGRADE, wants(site, NEW))
    serves_alone(site, NEW, other)
    assert site.run(playbook=UPGRADE, changes=wants(site, NEW)).changed == []
