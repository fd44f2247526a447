"""Releases that fail, each as programs do: what the operator is told, and that the release before alone goes on serving."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from build_standin import build
from fleetbed.host import Host
from fleetbed.runner import Run
from fleetbed.service import VERSION
from fleetbed.site import SITE, UNIT, Site, main_pid
from fleetbed.upgrade import START_TIMEOUT, STOP_TIMEOUT, impatient

COMPONENT = "/opt/fluxbase/server"
BACK = "The former files and running state are back. The probe holds with them."
# Releases are never changed: each variant is a version of its own.
VERSIONS = {
    "crash-at-start": "2026.3.7",
    "never-healthy": "2026.3.8",
    "failing-migration": "2026.3.9",
    "slow-start": "2026.3.10",
    "crash-once": "2026.3.11",
    "hang-on-stop": "2026.3.12",
    "none": "2026.3.13",
}


@pytest.fixture(scope="module")
def site(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that serves, by a definition with less patience."""
    folder = tmp_path_factory.mktemp("variants")
    impatient(folder)
    made = Site.plan(new_host("variants", has_packages=True), client, folder)
    made.converge()
    return made


def release(program: Path) -> dict[str, str]:
    return {"source": str(program), "checksum": f"sha256:{hashlib.sha256(program.read_bytes()).hexdigest()}"}


def upgrade(site: Site, variant: str, *, playbook: Any = None, **options: Any) -> Run:
    """A run with a further version; from 2026.3.7 on it wants a companion."""
    folder = site.ansible.folder
    program, pgschema = folder / f"fluxbase-{variant}", folder / "pgschema"
    if not program.exists():
        build(VERSIONS[variant], program, variant, seconds=2 * START_TIMEOUT)
        # As the real one of 2026: its help alone tells the version.
        pgschema.write_text('#!/bin/sh\ntest "$1" = --help && echo "Version: 1.2.3@0abcdef linux/amd64 unknown"\n')
    companion = {"version": "1.2.3", **release(pgschema)}
    entry = {"version": VERSIONS[variant], "release": release(program), "companions": {"pgschema": companion}}
    changes = site.changed(**entry, **options.pop("changes", {}))
    return site.run(playbook=playbook or site.only("service"), changes=changes, **options)


def links(host: Host) -> dict[str, str]:
    lines = host.root("find /opt/fluxbase -maxdepth 4 -type l -printf '%p %l\\n'").stdout.splitlines()
    return dict(line.split() for line in lines)


def no_unit_is_failed(host: Host) -> bool:
    return host.root("systemctl list-units --failed --plain --no-legend").stdout == ""


def serves_alone(site: Site, version: str, slot: str = "blue") -> None:
    """This version, and no other, on the host and to its users."""
    host, unit = site.host, f"fluxbase-server@{slot}.service"
    health = json.loads(site.curl("/health", "--fail").stdout)
    assert (health["status"], health["version"], health["slot"]) == ("ok", version, slot)
    assert links(host)[f"{COMPONENT}/{slot}"] == f"releases/{version}"
    note = json.loads(host.read("/etc/selfhost/services/fluxbase-server.json"))
    assert (note["version"], note["slot"]) == (version, slot)
    running = host.root("systemctl list-units --plain --no-legend --state=active,activating 'fluxbase-server@*'").stdout
    assert [line.split()[0] for line in running.splitlines()] == [unit]
    assert f"FLEET_VERSION={version}\0" in host.root(["cat", f"/proc/{main_pid(host, unit)}/environ"]).stdout
    assert no_unit_is_failed(host)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        pytest.param("crash-at-start", ["Failed to start", "conn closed"], id="crash-at-start"),
        pytest.param("never-healthy", ["Last answer: status 503", "Server listening"], id="never-healthy"),
        pytest.param("failing-migration", ["Failed to run migrations"], id="failing-migration"),
        pytest.param("slow-start", [f"over {START_TIMEOUT}", "refused", "Starting slowly"], id="slow-start"),
    ],
)
def test_a_release_that_fails_leaves_the_one_before(site: Site, variant: str, words: list[str]) -> None:
    item = site.add_item()
    before, pointed = site.hashes(), links(site.host)
    # Once as the operator does it: all roles.
    playbook = SITE if variant == "crash-at-start" else None
    failed = upgrade(site, variant, playbook=playbook, expect_failure=True).failed
    assert [outcome.task for outcome in failed] == ["selfhost.fleet.service : Run a component in its slot"]
    message = failed[0].result["msg"]
    for word in [*words, BACK]:
        assert word in message
    assert failed[0].result["rolled_back"]
    serves_alone(site, VERSION)
    assert site.hashes() == before and links(site.host) == pointed
    assert item in site.curl("/api/v1/items", "--fail").stdout
    # It is there for the next try, and the one that runs was not taken for an old one.
    releases = site.host.root(["ls", f"{COMPONENT}/releases"]).stdout.split()
    assert {VERSION, VERSIONS[variant]} <= set(releases)


def test_a_single_crash_at_start_is_retried(site: Site) -> None:
    upgrade(site, "crash-once")
    serves_alone(site, VERSIONS["crash-once"])
    assert links(site.host)["/opt/fluxbase/companions/pgschema/server@blue"] == "releases/1.2.3"
    journal = site.host.root(["journalctl", "--unit", UNIT, "--output", "cat"]).stdout
    assert journal.count("conn closed") >= 1


def test_a_release_that_hangs_in_its_stop_is_left_behind(site: Site) -> None:
    upgrade(site, "hang-on-stop")
    serves_alone(site, VERSIONS["hang-on-stop"])
    result = upgrade(site, "none").of("selfhost.fleet.service : Run a component in its slot").result
    assert result["timings_ms"]["apply"] >= STOP_TIMEOUT * 1000
    serves_alone(site, VERSIONS["none"])


def test_a_stop_that_ends_in_a_kill_leaves_no_failed_unit(site: Site) -> None:
    """The slot that is left is stopped, and not started again."""
    upgrade(site, "hang-on-stop")
    changes = {"slot": "green"}
    run = upgrade(site, "none", playbook=site.only("service", "edge"), changes=changes)
    result = run.of("selfhost.fleet.service : Write down what serves, and stop what does not any more").result
    assert f"{UNIT} did not end by itself when it was stopped (timeout" in "".join(result["warnings"])
    serves_alone(site, VERSIONS["none"], "green")
    again = upgrade(site, "none", playbook=SITE, changes=changes)
    assert again.changed == []
