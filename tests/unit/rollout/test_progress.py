"""What an operator sees of a rollout, from events by a clock that stands still until it is told."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.progress import (
    Progress,
    cut,
    failure,
    gate_text,
    said,
    time_left,
)

LIMITS = {"interval": 2, "timeout": 3, "successes": 2, "failures": 3, "soak": 10, "drain": 30}
NAMES = ("start app1, app2", "gate app1, app2", "finish app1")


class Watched(Progress):
    """At `now` seconds; the time of the day is those seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        super().__init__(lambda: self.now, lambda moment: f"t{moment:.0f}")


def news(event: str) -> dict[str, Any]:
    return {
        "event": event,
        "service": "fluxbase",
        "strategy": "blue_green",
        "operator": "ada@bridge",
        "hosts": ["app1", "app2"],
        "from": {"app1": "1.0", "app2": "1.0"},
        "to": {"app1": "2.0", "app2": "2.0"},
        "steps": [{"name": name, "outcome": "planned", "seconds": None} for name in NAMES],
    }


def step(name: str, seconds: int = 0) -> dict[str, Any]:
    return {"name": name, "phase": name.split()[0], "seconds": seconds}


@pytest.fixture
def progress() -> Watched:
    made = Watched()
    made.told(news("started"), LIMITS)
    return made


def test_it_begins_with_who_takes_what_where() -> None:
    progress = Watched()
    assert progress.view() == [] and not progress.open
    assert progress.told(news("started"), LIMITS) == [
        "t100  fluxbase 1.0 -> 2.0, blue_green, on app1, app2, by ada@bridge"
    ]
    assert progress.open


def test_each_step_is_one_line_however_many_hosts_tell_of_it(progress: Watched) -> None:
    steps = [step("start app1, app2", 12)]
    assert progress.begun([]) == []
    assert progress.begun(steps) == []
    assert progress.begun(steps) == []
    progress.now += 4.2
    steps.append(step("gate app1, app2", 25))
    assert progress.begun(steps) == ["t104  fluxbase  start app1, app2  done      4.2 s"]
    assert progress.begun(steps) == []
    progress.now += 1
    assert progress.told(news("done"), {})[0] == "t105  fluxbase  gate app1, app2   done      1.0 s"
    assert not progress.open and progress.view() == []


def test_the_end_says_what_changed_where_and_how_long_it_took(progress: Watched) -> None:
    assert not progress.changed("app1", "Before the first step")
    progress.begun([step("start app1, app2")])
    assert progress.changed("app1", "Start it")
    for host in ("app2", "app1"):
        progress.changed(host, "Start it")
        progress.changed(host, "Start it")
    progress.changed("app2", "Open a port")
    progress.now += 3
    progress.begun([step("start app1, app2"), step("finish app1")])
    progress.changed("app1", "Stop it")
    progress.now += 2
    assert progress.told(news("done"), {})[1:] == [
        "",
        "fluxbase 1.0 -> 2.0, blue_green: done after 5.0 s",
        "  start app1, app2  done       3.0 s",
        "    changed on app1: Start it",
        "    changed on app2: Start it, Open a port",
        "  finish app1       done       2.0 s",
        "    changed on app1: Stop it",
        "  app1 serves 2.0 instead of 1.0",
        "  app2 serves 2.0 instead of 1.0",
    ]


def test_after_a_failure_the_steps_are_the_way_back(progress: Watched) -> None:
    steps = [step("start app1, app2", 12)]
    progress.begun(steps)
    progress.now += 1.5
    assert progress.failed() == ["t102  fluxbase  start app1, app2  failed    1.5 s"]
    assert progress.failed() == []  # on the other host
    assert "back" in progress.view()[0] and progress.view()[1] == "  going back"
    steps.append(step("adopt app1", 30))
    assert progress.begun(steps) == []
    assert progress.view()[1].startswith("  back: adopt app1   30 s left at most")
    lines = progress.told(news("rolled_back"), {})
    assert lines[0] == "t102  fluxbase  back: adopt app1  done      0.0 s"
    assert "fluxbase 1.0 -> 2.0, blue_green: rolled back after 1.5 s" in lines
    assert lines[-1] == "  app2 serves 1.0 as before, and not 2.0"


def test_a_way_back_that_fails(progress: Watched) -> None:
    steps = [step("start app1, app2"), step("adopt app1")]
    progress.begun(steps[:1])
    progress.failed()
    progress.begun(steps)
    assert "back: adopt app1" in progress.failed()[0]
    lines = progress.told(news("failed"), {})
    assert lines[1] == "fluxbase 1.0 -> 2.0, blue_green: failed, and so did the way back after 0.0 s"
    assert lines[-1] == "  app2 may serve 1.0 or 2.0"


def test_a_failure_before_the_first_step() -> None:
    progress = Watched()
    assert progress.failed() == []
    assert "rolled back after 0.0 s" in progress.told(news("rolled_back"), LIMITS)[1]


def test_what_was_cut_off_and_is_taken_back() -> None:
    progress = Watched()
    same = {"from": {"app1": "1.0"}, "to": {"app1": "1.0"}}
    progress.told({**news("started"), **same}, LIMITS)
    assert progress.told({**news("done"), **same}, {})[-1] == "  app1 serves 1.0 as before"


def test_a_rollout_without_an_end(progress: Watched) -> None:
    progress.begun([step("start app1, app2")])
    progress.now += 2
    lines = progress.broken_off()
    assert lines[1] == "fluxbase 1.0 -> 2.0, blue_green: came to no end after 2.0 s"
    assert lines[2] == "  start app1, app2  cut off     2.0 s"
    assert "upgrade.yml again" in lines[-1]
    assert progress.broken_off() == []


def test_the_view_has_the_gate_and_the_time_left(progress: Watched) -> None:
    assert progress.view()[1:] == ["  beginning", "  "]
    progress.begun([step("start app1, app2", 12), step("gate app1, app2", 25)])
    progress.running("Ask it")
    progress.now += 61
    heading, now, below = progress.view()
    assert heading == "fluxbase 1.0 -> 2.0, blue_green   step 1 of 3   1:01"
    assert (
        now == "  gate app1, app2   0 s left at most   gate: 2 right answers in a row, one in 2 s; 3 wrong ones end it"
    )
    assert below == "  Ask it"


def test_probes_of_a_step_are_told_as_they_come(progress: Watched) -> None:
    progress.begun([step("gate app1, app2", 25)])
    result = {"ok": True, "tries": 3, "elapsed": 4.0, "last_answer": "status 200", "item": {"unit": "x@green.service"}}
    progress.probed("app1", result)
    progress.probed("app2", {**result, "ok": False})
    progress.probed("app2", {"changed": True})
    assert progress.view()[2] == "  x@green on app1 gave 2 of 2 answers in 3 tries"
    assert progress.told(news("done"), {})[0].endswith("0.0 s  x@green on app1 gave 2 of 2 answers in 3 tries")


@pytest.mark.parametrize("phase", ["rehearse", "start", "revive", "gate", "soak", "observe", "drain", "traffic"])
def test_every_gate_says_what_has_to_hold(phase: str) -> None:
    assert bool(gate_text(phase, LIMITS)) == (phase != "traffic")
    assert ("10 right answers" in gate_text(phase, LIMITS)) == (phase == "soak")


def test_time_left() -> None:
    assert time_left(12, 3.4) == "9 s left at most"
    assert time_left(12, 20) == "0 s left at most"
    assert time_left(0, 75) == "1:15, as long as it takes"


def test_a_failure_is_its_message_with_its_lines_and_what_else_there_is() -> None:
    result = {"msg": "one\ntwo", "failed": True, "changed": False, "_ansible_no_log": False, "exception": "..."}
    assert failure(result) == ("one\ntwo", {})
    assert failure({**result, "phase": "apply"}) == ("one\ntwo", {"phase": "apply"})
    assert failure({"failed": True}) == ("", {})


def test_what_tasks_have_to_say() -> None:
    assert said({"msg": "one\ntwo"}) == ["one", "two"]
    assert said({"msg": ["one", "two\nthree"]}) == ["one", "two", "three"]
    assert said({"x": 1}) == []


def test_lines_never_wrap() -> None:
    assert cut(["short", "x" * 100], 20) == ["short", "x" * 18 + "…"]
