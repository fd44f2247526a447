"""What goes wrong while an upgrade is under way: the former version alone serves on, users notice nothing, and the operator is told what to do.

Releases that fail by themselves at their start or in a rehearsal are in test_upgrade.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fleetbed.constant import asked_constantly
from fleetbed.faults import ANSWERS, fill, small, unit
from fleetbed.host import Host
from fleetbed.runner import Run
from fleetbed.site import SITE, Site
from fleetbed.upgrade import (
    NEW,
    OLD,
    ROLLBACK,
    START_TIMEOUT,
    UNITS,
    UPGRADE,
    VARIANTS,
    killed_in,
    nothing_is_left_of_the_rehearsal,
    once_in,
    refused,
    serves_alone,
    slot_that_serves,
    under_load,
    upgradable,
    wants,
)

PORTS = {"blue": 8081, "green": 8082}
BROKEN = "/etc/nginx/modules-enabled/99-broken.conf"
COPY = "/var/lib/selfhost-rehearsal"


@pytest.fixture(scope="module")
def site(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that serves the former version."""
    return upgradable(new_host, client, tmp_path_factory.mktemp("faults"), "upgrade-faults")


def idle(slot: str) -> str:
    return "green" if slot == "blue" else "blue"


def rollout(site: Site, **keys: Any) -> dict[str, Any]:
    return {**site.variables["fleet_services"]["fluxbase"]["rollout"], **keys}


@contextmanager
def edge_that_refuses(host: Host) -> Iterator[None]:
    """Whatever it is asked for: somebody's mistake by hand."""
    host.put(BROKEN, "nonsense;\n")
    try:
        yield
    finally:
        host.root(["rm", BROKEN])


@contextmanager
def users(site: Site) -> Iterator[list[Any]]:
    """Users who notice nothing meanwhile."""
    authority = (site.ansible.folder / "ca" / "ca.pem").read_text()
    with asked_constantly(site.client, site.host.address, authority) as answers:
        yield answers
    failed = [(begun_at, found) for begun_at, found in answers if found not in (200, 201)]
    assert len(answers) > 100
    assert failed == [], f"{len(failed)} of {len(answers)}: {failed[:10]}"


def records(site: Site, number: str) -> list[dict[str, Any]]:
    """The host's records of rollouts to a version, the newest last."""
    listed = site.host.root(f"ls /var/lib/selfhost/rollouts/fluxbase/*-{number}.json").stdout.split()
    return [json.loads(site.host.read(path)) for path in sorted(listed)]


def notes_of(record: dict[str, Any]) -> str:
    return "\n".join(step["message"] for step in record["steps"])


# The release


def test_a_release_that_fails_in_use_is_taken_back(site: Site) -> None:
    refused(site, "fails-in-use", "soak", "status 503", soak=6)


def test_a_release_that_crashes_in_use_has_the_former_one_stand_in(site: Site) -> None:
    """Only what it was working on in the moment of a crash is lost; without the other slot nothing would be served until the traffic is back."""
    slot = slot_that_serves(site)
    changes = wants(site, VARIANTS["crash-in-use"], "crash-in-use", rollout=rollout(site, soak=6))
    authority = (site.ansible.folder / "ca" / "ca.pem").read_text()
    with asked_constantly(site.client, site.host.address, authority) as answers:
        run = site.run(playbook=UPGRADE, changes=changes, expect_failure=True)
    unit = UNITS[idle(slot)]
    crashes = site.host.root(f"journalctl --quiet --output=cat --unit={unit} --grep='Main process exited, code=exited'")
    # Three of those who ask write: what is not idempotent is not sent again.
    assert 0 < len(crashes.stdout.splitlines()) <= 3, "a crash loop is seen at once"
    failed = [found for _begun, found in answers if found not in (200, 201)]
    assert len(failed) <= 3 * len(crashes.stdout.splitlines()), failed
    message = run.failed[-1].result["msg"]
    assert f"It failed in: soak {site.host.name}" in message and "Will not bear it for long" in message
    serves_alone(site, OLD, slot)


def test_a_slow_start_beyond_its_time(site: Site) -> None:
    refused(site, "slow-start", "start", f"over {START_TIMEOUT}", "refused", "Starting slowly")


STOPPED = "did not end by itself when it was stopped (timeout"


def test_a_new_release_that_hangs_in_its_stop_is_killed_on_the_way_back(site: Site) -> None:
    slot = slot_that_serves(site)
    with edge_that_refuses(site.host):
        changes = wants(site, VARIANTS["hang-on-stop"], "hang-on-stop")
        run = under_load(site, UPGRADE, changes, expect_failure=True)
    message = run.failed[-1].result["msg"]
    assert f"It failed in: traffic {site.host.name} 100 %" in message and "nonsense" in message
    serves_alone(site, OLD, slot)
    record = records(site, VARIANTS["hang-on-stop"])[-1]
    assert record["outcome"] == "rolled_back" and f"{UNITS[idle(slot)]} {STOPPED}" in notes_of(record)


def test_an_old_release_that_hangs_in_its_stop_is_killed_and_that_is_no_failure(site: Site) -> None:
    slot = slot_that_serves(site)
    site.run(playbook=UPGRADE, changes=wants(site, VARIANTS["hang-on-stop"], "hang-on-stop"))
    under_load(site, UPGRADE, wants(site, OLD))
    serves_alone(site, OLD, slot)
    record = records(site, OLD)[-1]
    assert record["outcome"] == "done" and f"{UNITS[idle(slot)]} {STOPPED}" in notes_of(record)


# The host


def failed_upgrade(site: Site, where: str, *words: str, **keys: Any) -> Run:
    """One that ends with the former version, as it was, and with these words."""
    slot = slot_that_serves(site)
    run = under_load(site, UPGRADE, wants(site, NEW, rollout=rollout(site, **keys)), expect_failure=True)
    message = run.failed[-1].result["msg"]
    told = (
        f"It failed in: {where}",
        f"fluxbase {OLD} alone serves, from the slot {slot} as before",
        "Mend what is said",
    )
    for word in (*words, *told):
        assert word in message, message
    serves_alone(site, OLD, slot)
    return run


def test_a_disk_that_is_full_while_the_release_is_unpacked(site: Site) -> None:
    with small(site.host, "/opt", room="100"):
        site.host.root(f"rm -rf /opt/fluxbase/server/releases/{NEW}")
        words = f"The disk is full: Installing {NEW} failed below /opt/fluxbase/server (0 MiB free)", "Free some space"
        failed_upgrade(site, f"install {site.host.name}", *words)


def test_a_disk_that_is_full_where_the_host_keeps_its_records(site: Site) -> None:
    slot, folder = slot_that_serves(site), "/var/lib/selfhost"
    with small(site.host, folder, room="1"):
        filler = fill(site.host, folder)
        try:
            run = under_load(site, UPGRADE, wants(site, NEW), expect_failure=True)
        finally:
            site.host.root(["rm", filler])
    message = run.failed[0].result["msg"]
    assert "No space left on device" in message and "free some space there, and run again" in message
    serves_alone(site, OLD, slot)


def test_a_disk_that_is_full_while_the_database_is_copied(site: Site) -> None:
    """The room that a copy wants was there at first."""
    fills = f"until test -e {COPY}/data/PG_VERSION; do sleep 0.05; done; cat /dev/zero >{COPY}/filler; sleep 900"
    site.host.root(f"mkdir {COPY}; mount -t tmpfs -o size=300m tmpfs {COPY}")
    try:
        with unit(site.host, "filler", "sh", "-c", fills):
            words = (
                "The rehearsal could not take place",
                f"The disk is full: the copy did not fit in {COPY}",
                "mount another disk there",
            )
            failed_upgrade(site, f"rehearse {site.host.name}", *words, rehearsal="auto")
        assert site.host.root(f"ls -A {COPY}").stdout == ""
    finally:
        site.host.root(f"umount {COPY}; rmdir {COPY}")
    nothing_is_left_of_the_rehearsal(site.host)


def test_a_port_of_the_idle_slot_that_another_program_holds(site: Site) -> None:
    other = idle(slot_that_serves(site))
    site.host.put("/run/answers.py", ANSWERS)
    with unit(site.host, "intruder", "python3", "/run/answers.py", str(PORTS[other])):
        holder = (
            f"127.0.0.1:{PORTS[other]}, where {UNITS[other]} is to listen, is held by /system.slice/intruder.service"
        )
        failed_upgrade(site, f"start {site.host.name}", holder, "Stop that", "give one of the two another port")


def test_postgresql_that_restarts_in_the_middle(site: Site) -> None:
    """Users miss their database, whatever else is under way. The former version has it back, too."""
    slot = slot_that_serves(site)
    running = site.start(playbook=UPGRADE, changes=wants(site, NEW, rollout=rollout(site, soak=30)))
    once_in(running, "soak")
    site.host.root("systemctl stop postgresql@17-main; sleep 5; systemctl start postgresql@17-main")
    run = running.end(timeout=300)
    assert run.returncode != 0
    message = run.failed[-1].result["msg"]
    assert f"It failed in: soak {site.host.name}" in message and "status 503" in message
    site.answers_within(60)
    serves_alone(site, OLD, slot)


# The way back


def test_a_way_back_that_fails_is_finished_by_the_next_run(site: Site) -> None:
    slot = slot_that_serves(site)
    changes = wants(site, VARIANTS["fails-in-use"], "fails-in-use", rollout=rollout(site, soak=20))
    with users(site):
        running = site.start(playbook=UPGRADE, changes=changes)
        once_in(running, "soak")
        with edge_that_refuses(site.host):
            run = running.end(timeout=300)
        assert run.returncode != 0
        message = run.failed[-1].result["msg"]
        words = (
            f"It failed in: soak {site.host.name}",
            "status 503",
            f"The way back failed, too, in: traffic {site.host.name} 0 %",
            "nonsense",
            f"in the slot {idle(slot)}, to which the edges may still send requests",
            f"with {OLD} in the inventory it takes the rest back",
        )
        for word in words:
            assert word in message
        assert records(site, VARIANTS["fails-in-use"])[-1]["outcome"] == "unfinished"
        site.run(playbook=UPGRADE, changes=wants(site, OLD))
    serves_alone(site, OLD, slot)
    assert records(site, VARIANTS["fails-in-use"])[-1]["outcome"] == "rolled_back"


# Cut off


def test_a_host_that_boots_in_the_middle_serves_the_former_version_until_the_next_run(site: Site) -> None:
    slot = slot_that_serves(site)
    running = site.start(playbook=UPGRADE, changes=wants(site, NEW, rollout=rollout(site, soak=30)))
    once_in(running, "soak")
    site.host.restart()
    run = running.end(timeout=300)
    assert run.returncode != 0 and [outcome.status for outcome in run.failed] == ["unreachable"]
    assert "run it again" in run.of("Say what to do where this run is cut off").result["msg"]
    site.answers_within(60)
    assert json.loads(site.curl("/health", "--fail").stdout)["version"] == OLD
    under_load(site, UPGRADE, wants(site, OLD))
    serves_alone(site, OLD, slot)


STEPS = ("prepare", "install", "stage", "rehearse", "copy", "database")
STEPS += ("start", "gate", "traffic", "soak", "drain", "finish", "settle")


@pytest.mark.parametrize("phase", ["start", "finish"])
def test_a_controller_that_is_killed_and_the_former_version_wanted_again(site: Site, phase: str) -> None:
    """The ways back from where the new slot may have started, and from where the old one may have stopped."""
    with users(site):
        killed_in(site, phase, wants(site, NEW))
        site.run(playbook=UPGRADE, changes=wants(site, OLD))
    serves_alone(site, OLD, slot_that_serves(site))
    assert {record["outcome"] for record in records(site, NEW)} <= {"done", "rolled_back"}


def test_a_controller_that_is_killed_in_each_step_and_run_again(site: Site) -> None:
    """Every run is killed one step later than the one before; the last one finishes what all of them began."""
    slot = slot_that_serves(site)
    with users(site):
        for phase in STEPS:
            rehearsed = "auto" if phase in ("stage", "rehearse") else "off"
            killed_in(site, phase, wants(site, NEW, rollout=rollout(site, rehearsal=rehearsed)))
        site.run(playbook=UPGRADE, changes=wants(site, NEW))
    serves_alone(site, NEW, idle(slot))
    nothing_is_left_of_the_rehearsal(site.host)
    assert records(site, NEW)[-1]["outcome"] == "done"
    assert site.run(playbook=SITE, changes=wants(site, NEW)).changed == []
    # The former release is kept, whichever run came how far.
    options = ["-e", "service=fluxbase", "-e", "no_way_back=fluxbase"]
    under_load(site, ROLLBACK, wants(site, NEW), options=options)
    serves_alone(site, OLD, slot)
    # A rollback that is cut off on its way, and taken back, leaves what it was on its way to.
    killed_in(site, "drain", {}, playbook=ROLLBACK, options=options)
    under_load(site, UPGRADE, wants(site, OLD))
    serves_alone(site, OLD, slot)
    kept = json.loads(site.host.read(f"/etc/selfhost/services/slots/{UNITS[idle(slot)].removesuffix('.service')}.json"))
    assert kept["version"] == NEW and site.host.root(f"ls /etc/fluxbase/server.{idle(slot)}.env").stdout
