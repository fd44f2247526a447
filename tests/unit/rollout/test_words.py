"""What the operator reads of a rollout."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.rollout import (
    failed_step,
    history_text,
    rehearsal_refusal,
    rehearsal_text,
    serves_again,
    steps_text,
    way_back_failed,
    way_back_from,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.schedule import Limits, rollback, schedule

LIMITS = Limits(start=180, stop=120)
GOOD = {"ok": True, "seconds": 2.5, "words": "healthy", "journal": ["Server listening"]}
BAD = {"ok": False, "seconds": 9.0, "words": "it ended 3 times", "journal": ["Failed to run migrations"]}


def rollout(kind: str = "upgrade") -> dict[str, Any]:
    steps = schedule("blue_green", ["web1"], ["web1"], LIMITS) if kind == "upgrade" else rollback(["web1"], LIMITS)
    return {
        "service": "fluxbase",
        "kind": kind,
        "strategy": "blue_green",
        "hosts": ["web1"],
        "limits": LIMITS.__dict__,
        "rehearsal": {"host": "web1", "reason": ""},
        "from": {"web1": {"version": "1.0", "slot": "blue"}},
        "to": {"web1": {"version": "2.0", "slot": "green"}},
        "steps": [step.as_data() for step in steps],
    }


def found(new: dict[str, Any], old: dict[str, Any] | None) -> dict[str, Any]:
    return {"copied": "full", "size": 5 * 2**20, "new": new, "old": old, "locks": {"app.items": 1.4}}


def test_the_list_of_steps_has_versions_strategy_and_times() -> None:
    text = steps_text(rollout())
    assert text.startswith("fluxbase: 1.0 -> 2.0, blue_green\n")
    assert "start web1" in text and "180 s at most" in text
    assert "not rehearsed" not in text
    without = {**rollout(), "rehearsal": {"host": None, "reason": "the database is on db1, and fluxbase is not"}}
    assert steps_text(without).endswith("not rehearsed: the database is on db1, and fluxbase is not")


def test_a_rehearsal_that_went_well() -> None:
    assert rehearsal_text(found(GOOD, GOOD), rollout()) == [
        "rehearsed with a copy of the database (5 MiB) with all rows",
        "2.0: healthy after 2.5 s",
        "  app.items could not be read for 1.4 s",
        "1.0 on what that left: healthy after 2.5 s",
    ]
    assert rehearsal_refusal(found(GOOD, GOOD), rollout()) == ""


def test_a_release_that_does_not_start_is_refused_in_its_own_words() -> None:
    words = rehearsal_refusal(found(BAD, None), rollout(), "fluxbase")
    assert "fluxbase 2.0 does not start on a copy of this database: it ended 3 times" in words
    assert "Failed to run migrations" in words and "was not touched" in words


@pytest.mark.parametrize(("accepted", "refused"), [("", True), ("notes", True), ("fluxbase", False)])
def test_no_way_back_is_refused_unless_it_is_accepted_by_name(accepted: str, refused: bool) -> None:
    words = rehearsal_refusal(found(GOOD, BAD), rollout(), accepted)
    assert bool(words) is refused
    assert not refused or "-e no_way_back=fluxbase" in words


def test_the_failed_step_is_the_one_that_was_begun_last() -> None:
    assert failed_step(rollout()["steps"][:5])["name"] == "gate web1"
    assert failed_step(rollout("rollback")["steps"][:1])["name"] == "revive web1"
    assert failed_step([])["name"] == "the beginning"


def test_who_serves_and_what_to_run_is_said() -> None:
    steps = rollout()["steps"]
    words = serves_again(rollout(), "web1", steps[:4])
    assert "fluxbase 1.0 alone serves, from the slot blue as before" in words
    rollback_steps = rollout("rollback")["steps"]
    assert "run upgrade.yml again; or set the version in the inventory back." in words
    assert serves_again(rollout("rollback"), "web1", rollback_steps[:1]).endswith("run rollback.yml again.")
    settled = serves_again(rollout(), "web1", steps)
    assert settled.startswith("fluxbase 2.0 serves, from the slot green") and "upgrade.yml" in settled
    # Nothing of its own was begun: what the run before it has left is as it was.
    assert "is not taken back yet" in serves_again(rollout(), "web1", rollback_steps[:1])
    assert serves_again(rollout(), "edge1", steps[:4]) == "The former version of fluxbase serves."


def test_a_way_back_that_fails_says_what_the_next_run_does() -> None:
    there = [step for step in rollout()["steps"] if step["phase"] in ("prepare", "start", "traffic", "soak")]
    back = way_back_from(rollout(), there)
    words = way_back_failed(rollout(), "web1", [*there, back[0]], "nonsense")
    assert words.startswith("The way back failed, too, in: traffic web1 0 %\nnonsense\n")
    assert "with 1.0 in the inventory it takes the rest back, with 2.0 it goes on" in words
    assert "2.0 in the slot green, to which the edges may still send requests" in words
    assert "to which the edges do not send requests" in way_back_failed(rollout(), "web1", [*there, *back[:2]], "")
    assert "to which the edges do not send requests" in way_back_failed(rollout(), "web1", [*there[:2], back[1]], "")
    noted = way_back_failed(rollout(), "web1", [*there, *back], "The disk is full", True)
    assert noted.startswith("fluxbase 1.0 alone serves") and "could not be written down" in noted
    assert "nonsense" in way_back_failed(rollout(), "edge1", [*there, back[0]], "nonsense")


def test_the_way_back_of_a_rollback_is_the_slot_that_served() -> None:
    made = rollout("rollback")
    assert [step["name"] for step in way_back_from(made, made["steps"][:1])] == ["halt web1"]
    assert [step["name"] for step in way_back_from(made, made["steps"][:3])] == ["traffic web1 100 %", "halt web1"]


def test_the_history_is_that_of_all_hosts_and_the_newest_first() -> None:
    def record(began: str, outcome: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "service": "fluxbase",
            "from": {"version": "1.0"},
            "to": {"version": "2.0"},
            "strategy": "rolling",
            "operator": "ada@bridge",
            "began": began,
            "outcome": outcome,
            "seconds": 12.0 if outcome == "done" else None,
            "message": "",
            "steps": steps,
        }

    step = {"name": "finish web2", "outcome": "done", "seconds": 2.25, "message": "it was killed"}
    hosts = [
        {"inventory_hostname": "web1", "recorded": {"records": [record("2026-11-26T08:00:00.000Z", "unfinished", [])]}},
        {"inventory_hostname": "web2", "recorded": {"records": [record("2026-11-26T09:00:00.000Z", "done", [step])]}},
        {"inventory_hostname": "db1"},
    ]
    assert history_text(hosts) == [
        "2026-11-26T09:00:00.000Z web2: fluxbase 1.0 -> 2.0, rolling, by ada@bridge: done (12.0 s)",
        "  finish web2: done (2.2 s): it was killed",
        "2026-11-26T08:00:00.000Z web1: fluxbase 1.0 -> 2.0, rolling, by ada@bridge: unfinished",
    ]
    assert history_text([]) == ["No rollout is recorded on any host."]


@pytest.mark.parametrize(
    ("length", "shown"), [(2, ["0", "1"]), (5, ["0", "1", "2", "3", "4"]), (9, ["0", "...", "6", "7", "8"])]
)
def test_the_history_has_both_ends_of_a_long_reason(length: int, shown: list[str]) -> None:
    """What failed, and the last that the program said."""
    record = {
        "service": "fluxbase",
        "from": None,
        "to": {"version": "2.0"},
        "strategy": "rolling",
        "operator": "ada@bridge",
        "began": "2026-11-26T08:00:00.000Z",
        "outcome": "rolled_back",
        "seconds": 2.0,
        "message": "\n".join(map(str, range(length))),
        "steps": [],
    }
    assert history_text([{"inventory_hostname": "web1", "recorded": {"records": [record]}}])[1:] == [
        f"  {line}" for line in shown
    ]
