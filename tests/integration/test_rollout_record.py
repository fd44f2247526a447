"""The ledger and the lock on the fleet, on real hosts and between real runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

RECORD = "selfhost.fleet.rollout_record"
LOCK = "selfhost.fleet.fleet_lock"
FILE = "/var/lib/selfhost/fleet.lock"
ROLLOUTS = "/var/lib/selfhost/rollouts"
ROLLOUT = {"service": "notes", "id": "one"}
BEGUN = {
    "state": "begun",
    **ROLLOUT,
    "operator": "ada@bridge",
    "strategy": "rolling",
    "from": {"version": "1.0", "slot": "blue"},
    "to": {"version": "2.0", "slot": "green"},
}
# A run of a controller that is not this one, so that nobody can see whether it lives.
ELSEWHERE = {
    "token": "theirs",
    "operator": "bob@elsewhere",
    "controller": {"machine": "m", "host": "elsewhere", "pid": 1},
}


@pytest.fixture(scope="module", params=["host", "debian12_host"])
def target(request: pytest.FixtureRequest) -> Host:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Host)
    return made


@pytest.fixture(autouse=True)
def bare(target: Host) -> Iterator[None]:
    yield
    target.root(f"rm -rf {ROLLOUTS} {FILE}")


def record(ansible: Ansible, host: Host, options: dict[str, Any], **run: Any) -> dict[str, Any]:
    return ansible.module(RECORD, options, host, **run)


def lock(ansible: Ansible, host: Host, options: dict[str, Any] | None = None, **run: Any) -> dict[str, Any]:
    return ansible.module(LOCK, {"what": "upgrade of notes", **(options or {})}, host, **run)


def test_check_mode_on_a_bare_host(ansible: Ansible, target: Host) -> None:
    assert record(ansible, target, BEGUN, check=True)["changed"]
    step = {"state": "taken", **ROLLOUT, "steps": [{"name": "start", "outcome": "started"}]}
    assert record(ansible, target, step, check=True)["changed"]
    assert lock(ansible, target, check=True)["holder"]["what"] == "upgrade of notes"
    assert target.root(f"ls -d {ROLLOUTS} {FILE}", check=False).stdout == ""


def test_a_rollout_is_recorded(ansible: Ansible, target: Host) -> None:
    said = {"name": "start", "comment": "postgresql://n:hunter2@db/n"}
    steps = [
        {"state": "taken", **ROLLOUT, "steps": [{**said, "outcome": outcome}, {"name": "gate", "outcome": outcome}]}
        for outcome in ("started", "done")
    ]
    tasks = [{"name": f"step {n}", RECORD: options} for n, options in enumerate([BEGUN, *steps, steps[-1]])]
    run = ansible.playbook([{"hosts": "all", "gather_facts": False, "tasks": tasks}], [target])
    assert [outcome.changed for outcome in run.outcomes] == [True, True, True, False]
    assert [item["id"] for item in run.of("step 2").result["unfinished"]] == ["one"]

    ended = record(ansible, target, {"state": "ended", **ROLLOUT, "outcome": "done"})
    assert ended["unfinished"] == []
    found = record(ansible, target, {"state": "read"})["records"]
    assert [(item["outcome"], *(step["outcome"] for step in item["steps"])) for item in found] == [("done",) * 3]
    text = target.read(f"{ROLLOUTS}/notes/one.json")
    assert json.loads(text) == found[0]
    assert "hunter2" not in text
    modes = target.root(f"stat -c '%a %U' {ROLLOUTS} {ROLLOUTS}/notes {ROLLOUTS}/notes/one.json").stdout.split("\n")
    assert modes[:3] == ["700 root", "700 root", "600 root"]
    assert record(ansible, target, BEGUN)["resumes"]


def test_a_damaged_record_is_said(ansible: Ansible, target: Host) -> None:
    record(ansible, target, BEGUN)
    target.root(f"truncate -s 40 {ROLLOUTS}/notes/one.json")
    damaged = record(ansible, target, {"state": "read", "service": "notes"})["damaged"]
    assert [(item["service"], item["id"]) for item in damaged] == [("notes", "one")]
    step = {"state": "taken", **ROLLOUT, "steps": [{"name": "start", "outcome": "started"}]}
    assert "is damaged" in record(ansible, target, step, expect_failure=True)["msg"]


def test_a_mistake_names_the_option(ansible: Ansible, target: Host) -> None:
    options = {"state": "ended", **ROLLOUT, "outcome": "started"}
    assert (
        "value of outcome must be one of: done, rolled_back, failed"
        in record(ansible, target, options, expect_failure=True)["msg"]
    )


def test_one_run_holds_it_in_all_its_tasks(ansible: Ansible, target: Host) -> None:
    tasks = [
        {"name": name, LOCK: {"state": state, "what": "upgrade of notes"}}
        for name, state in (("take", "held"), ("again", "held"), ("release", "released"), ("no more", "released"))
    ]
    run = ansible.playbook([{"hosts": "all", "gather_facts": False, "tasks": tasks}], [target])
    assert [outcome.changed for outcome in run.outcomes] == [True, False, True, False]
    assert target.root(f"ls {FILE}", check=False).stdout == ""


def test_another_controllers_lock_is_taken_over_by_name_alone(ansible: Ansible, target: Host) -> None:
    lock(ansible, target, ELSEWHERE)
    refused = lock(ansible, target, expect_failure=True)
    assert "locked by bob@elsewhere" in refused["msg"]
    assert "-e lock_takeover=bob@elsewhere" in refused["msg"]
    assert "locked by bob@elsewhere" in lock(ansible, target, expect_failure=True, check=True)["msg"]
    wrong = lock(ansible, target, {"takeover": "bob"}, expect_failure=True)
    assert "nothing was taken over" in wrong["msg"]
    left = lock(ansible, target, {"state": "released"})
    assert (left["changed"], left["holder"]["operator"]) == (False, "bob@elsewhere")
    assert lock(ansible, target, {"takeover": "bob@elsewhere"})["taken_over"]["token"] == "theirs"


def test_a_run_that_lives_keeps_it_and_one_that_was_killed_does_not(ansible: Ansible, target: Host) -> None:
    tasks = [
        {"name": "take", LOCK: {"what": "upgrade of notes"}},
        {"name": "work", "ansible.builtin.command": "sleep 30", "changed_when": False},
    ]
    running = ansible.start([{"hosts": "all", "gather_facts": False, "tasks": tasks}], [target])
    try:
        deadline = time.monotonic() + 60
        while not running.outcomes:
            assert time.monotonic() < deadline, running.printed.read_text()
            time.sleep(0.2)
        assert "Wait until that run has ended" in lock(ansible, target, expect_failure=True)["msg"]
    finally:
        running.kill()
    taken = lock(ansible, target)
    assert taken["taken_over"]["controller"]["pid"] == running.process.pid
    assert any("lives no more" in str(warning) for warning in taken["warnings"])
