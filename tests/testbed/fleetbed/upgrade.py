"""Upgrades and rollbacks of the site's service, from one version of the stand-in to another, and how to see what they came to."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from build_standin import build  # type: ignore[import-not-found]  # a program beside this package

from .constant import asked_constantly
from .host import Host
from .paths import REPOSITORY
from .runner import Run, Running
from .site import Site, main_pid

UPGRADE, ROLLBACK = REPOSITORY / "playbooks" / "upgrade.yml", REPOSITORY / "playbooks" / "rollback.yml"
OLD, NEW = "2026.3.4", "2026.3.6"
# Releases are never changed: each variant is a version of its own.
VARIANTS = {
    "crash-at-start": "2026.2.1",
    "never-healthy": "2026.2.2",
    "ruinous-migration": "2026.2.4",
    "poisonous-migration": "2026.2.5",
    "bad-answers": "2026.2.6",
    "fails-in-use": "2026.2.7",
    "crash-in-use": "2026.2.8",
    "slow-start": "2026.2.10",
    "hang-on-stop": "2026.2.11",
}
IN_USE = 1.0  # seconds that the variants ...-in-use bear
# Seconds; the definition's own are minutes. Four runs at once on two cores start programs slowly.
START_TIMEOUT, STOP_TIMEOUT = 20, 6
UNITS = {slot: f"fluxbase-server@{slot}.service" for slot in ("blue", "green")}


def impatient(folder: Path) -> None:
    """The service's definition beside an inventory in this folder, with less patience."""
    definition = (REPOSITORY / "services" / "fluxbase.yml").read_text()
    for before, after in (
        ("start_timeout: 180 ", f"start_timeout: {START_TIMEOUT} "),
        ("stop_timeout: 90\n", f"stop_timeout: {STOP_TIMEOUT}\n"),
    ):
        assert definition.count(before) == 1
        definition = definition.replace(before, after)
    (folder / "services").mkdir()
    (folder / "services" / "fluxbase.yml").write_text(definition)


def upgradable(new_host: Callable[..., Host], client: Host, folder: Path, name: str = "upgrade") -> Site:
    """A site that serves the former version, by a definition with less patience; `new_host` is the fixture of that name."""
    impatient(folder)
    made = Site.plan(new_host(name, has_packages=True), client, folder)
    made.variables["fleet_services"]["fluxbase"] |= {
        **version(folder, OLD),
        "rollout": {"soak": 2, "drain": 5, "interval": 1, "rehearsal": "off"},
    }
    made.converge()
    return made


def version(folder: Path, number: str, variant: str = "none") -> dict[str, Any]:
    """Keys of the service's entry."""
    program = folder / f"fluxbase-{number}"
    if not program.exists():
        build(number, program, variant, seconds=IN_USE if variant.endswith("-in-use") else 2 * START_TIMEOUT)
    checksum = f"sha256:{hashlib.sha256(program.read_bytes()).hexdigest()}"
    return {"version": number, "release": {"source": str(program), "checksum": checksum}}


def wants(site: Site, number: str, variant: str = "none", **changes: Any) -> dict[str, Any]:
    """The inventory with another version."""
    return site.changed(**{**version(site.ansible.folder, number, variant), **changes})


def back(site: Site) -> None:
    """To the release that the other slot has kept: sooner done than an upgrade to it."""
    site.run(playbook=ROLLBACK, options=["-e", "service=fluxbase", "-e", "no_way_back=fluxbase"])


def begun(running: Running) -> list[str]:
    """Phases of the steps that a run has begun by now."""
    outcomes = [outcome for outcome in running.outcomes if outcome.task == "Remember what was begun"]
    return [step["phase"] for step in outcomes[-1].result["ansible_facts"]["rollout_begun"]] if outcomes else []


def once_in(running: Running, phase: str, seconds: float = 300) -> None:
    """Wait until a run is in a step; one that does not come there ends."""
    until = time.monotonic() + seconds
    while phase not in begun(running):
        if time.monotonic() > until or running.process.poll() is not None:
            running.kill()
            raise AssertionError(running.printed.read_text())
        time.sleep(0.05)


def killed_in(site: Site, phase: str, changes: dict[str, Any], *, playbook: Path = UPGRADE, **options: Any) -> None:
    running = site.start(playbook=playbook, changes=changes, **options)
    once_in(running, phase)
    time.sleep(0.7)  # by then most have begun on the host
    running.kill()


def under_load(site: Site, playbook: Path, changes: dict[str, Any], **options: Any) -> Run:
    """A run of which users notice nothing."""
    authority = (site.ansible.folder / "ca" / "ca.pem").read_text()
    with asked_constantly(site.client, site.host.address, authority) as answers:
        run = site.run(playbook=playbook, changes=changes, **options)
    failed = [(begun, found) for begun, found in answers if found not in (200, 201)]
    assert len(answers) > 50  # a run that fails at once takes five seconds
    assert failed == [], f"{len(failed)} of {len(answers)}"
    return run


def serves_alone(site: Site, number: str, slot: str) -> None:
    """This version, and no other, to users, on the host, in its notes and after a boot."""
    host, unit = site.host, UNITS[slot]
    health = json.loads(site.curl("/health", "--fail").stdout)
    assert (health["status"], health["version"], health["slot"]) == ("ok", number, slot)
    listed = "systemctl list-units --plain --no-legend --state=active,activating,reloading 'fluxbase-server@*'"
    assert [line.split()[0] for line in host.root(listed).stdout.splitlines()] == [unit]
    enabled = "systemctl list-unit-files --plain --no-legend --state=enabled 'fluxbase-server@*'"
    assert [line.split()[0] for line in host.root(enabled).stdout.splitlines()] == [unit]
    note = json.loads(host.read("/etc/selfhost/services/fluxbase-server.json"))
    assert (note["version"], note["slot"]) == (number, slot)
    assert host.root("systemctl list-units --failed --plain --no-legend").stdout == ""
    assert host.root("find /var/lib/selfhost/transactions -mindepth 1 -type d").stdout == ""


def slot_that_serves(site: Site) -> str:
    return str(json.loads(site.host.read("/etc/selfhost/services/fluxbase-server.json"))["slot"])


def refused(site: Site, variant: str, where: str, *words: str, **rollout: Any) -> None:
    """The former version alone serves on, by the same process, from a database that is as it was; and the operator is told why."""
    slot = slot_that_serves(site)
    process, tables = main_pid(site.host, UNITS[slot]), schema(site.host)
    entry = site.variables["fleet_services"]["fluxbase"]
    wanted = wants(site, VARIANTS[variant], variant, rollout={**entry["rollout"], **rollout})
    run = under_load(site, UPGRADE, wanted, expect_failure=True)
    message = run.failed[-1].result["msg"]
    told = (f"It failed in: {where} {site.host.name}", f"fluxbase {OLD} alone serves, from the slot {slot} as before")
    for word in (*words, *told):
        assert word in message
    serves_alone(site, OLD, slot)
    assert main_pid(site.host, UNITS[slot]) == process
    if where == "rehearse":
        assert schema(site.host) == tables
    nothing_is_left_of_the_rehearsal(site.host)


def schema(host: Host) -> str:
    dump = "runuser -u postgres -- pg_dump --schema-only fluxbase | grep -v '^.\\(un\\)\\?restrict '"
    return host.root(dump).stdout


def nothing_is_left_of_the_rehearsal(host: Host) -> None:
    assert (
        host.root("ls -d /var/lib/selfhost-rehearsal /run/systemd/system/selfhost-rehearsal*", check=False).stdout == ""
    )
    assert host.root("systemctl list-units --all --plain --no-legend 'selfhost-rehearsal*'").stdout == ""
    assert host.root("pgrep -u postgres --full rehearsal", check=False).stdout == ""
