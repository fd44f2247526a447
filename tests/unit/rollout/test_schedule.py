"""Strategies as data, and the way back from wherever a rollout came."""

from __future__ import annotations

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.schedule import (
    STRATEGIES,
    Limits,
    Step,
    back_from_rollback,
    rollback,
    schedule,
    way_back,
)

LIMITS = Limits(start=180, stop=120, soak=7, drain=30)
HOSTS = ("app1", "app2", "app3")


def steps(strategy: str, *hosts: str) -> list[Step]:
    return schedule(strategy, hosts, [*hosts, "db1"], LIMITS)


def short(found: list[Step]) -> list[str]:
    return [step.name for step in found]


def test_blue_and_green_is_one_switch_of_all_hosts() -> None:
    assert short(steps("blue_green", *HOSTS)) == [
        "prepare app1, app2, app3, db1",
        "install app1, app2, app3",
        "database app1, app2, app3, db1",
        "start app1",
        "gate app1",
        "start app2, app3",
        "gate app2, app3",
        "traffic app1 100 %, app2 100 %, app3 100 %",
        "soak app1, app2, app3",
        "drain app1, app2, app3",
        "finish app1, app2, app3",
        "settle app1, app2, app3",
    ]


def test_the_database_is_as_it_was_until_the_rehearsal_has_gone_well() -> None:
    found = short(schedule("blue_green", ["app1"], ["app1"], LIMITS, rehearsed_on=["app1"]))
    assert found[:6] == ["prepare app1", "install app1", "stage app1", "rehearse app1", "database app1", "start app1"]


def test_a_canary_gets_a_growing_share_while_the_edges_look() -> None:
    found = schedule("canary", ["app1"], ["app1"], LIMITS, edges=["edge1", "edge2"])
    assert short(found) == [
        "prepare app1",
        "install app1",
        "database app1",
        "start app1",
        "gate app1",
        "traffic app1 10 %",
        "observe app1 10 %",
        "traffic app1 50 %",
        "observe app1 50 %",
        "traffic app1 100 %",
        "soak app1",
        "drain app1",
        "finish app1",
        "settle app1",
    ]
    assert {step.hosts for step in found if step.phase == "observe"} == {("edge1", "edge2")}


def test_rolling_is_host_by_host() -> None:
    assert short(steps("rolling", "app1", "app2")) == [
        "prepare app1, app2, db1",
        "install app1, app2",
        "database app1, app2, db1",
        "start app1",
        "gate app1",
        "traffic app1 100 %, app2 0 %",
        "soak app1",
        "drain app1",
        "finish app1",
        "start app2",
        "gate app2",
        "traffic app1 100 %, app2 100 %",
        "soak app2",
        "drain app2",
        "finish app2",
        "settle app1, app2",
    ]


def test_a_restart_never_has_two_at_a_time() -> None:
    assert short(steps("restart", "app1")) == [
        "prepare app1, db1",
        "install app1",
        "database app1, db1",
        "stop app1",
        "start app1",
        "gate app1",
        "traffic app1 100 %",
        "soak app1",
        "finish app1",
        "settle app1",
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("hosts", [HOSTS, HOSTS[:1]], ids=["three hosts", "one host"])
def test_nothing_gets_traffic_that_has_not_passed_its_gate_and_nothing_ends_that_has_it(
    strategy: str, hosts: tuple[str, ...]
) -> None:
    passed: set[str] = set()
    moved: set[str] = set()
    for step in steps(strategy, *hosts):
        if step.phase == "gate":
            passed |= set(step.hosts)
        if step.phase == "traffic":
            moved |= {host for host, share in step.shares.items() if share}
            assert moved <= passed
        if step.phase in ("drain", "finish"):
            assert set(step.hosts) <= moved
    assert moved == set(hosts)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_program_that_migrates_at_its_start_is_alone_at_first(strategy: str) -> None:
    first = next(step for step in steps(strategy, *HOSTS) if step.phase == "start")
    assert first.hosts == ("app1",)


def back(strategy: str, failed: str, *hosts: str) -> list[str]:
    taken = steps(strategy, *hosts)
    (number, *_later) = [number for number, step in enumerate(taken) if step.name == failed]
    return short(way_back(taken[: number + 1], hosts, LIMITS))


@pytest.mark.parametrize(
    ("strategy", "failed", "expected"),
    [
        ("blue_green", "prepare app1, app2, db1", []),
        ("blue_green", "install app1, app2", []),
        ("blue_green", "database app1, app2, db1", []),
        ("blue_green", "start app1", ["adopt app1", "discard app1"]),
        ("blue_green", "gate app2", ["adopt app1, app2", "discard app1, app2"]),
        (
            "canary",
            "observe app1 10 %, app2 10 %",
            ["traffic app1 0 %, app2 0 %", "adopt app1, app2", "discard app1, app2"],
        ),
        (
            "blue_green",
            "soak app1, app2",
            ["traffic app1 0 %, app2 0 %", "adopt app1, app2", "discard app1, app2"],
        ),
        # Those that have stopped start again, and answer, before they get traffic.
        (
            "blue_green",
            "finish app1, app2",
            ["revive app1, app2", "traffic app1 0 %, app2 0 %", "adopt app1, app2", "discard app1, app2"],
        ),
        (
            "rolling",
            "start app2",
            ["revive app1", "traffic app1 0 %, app2 0 %", "adopt app1, app2", "discard app1, app2"],
        ),
        ("restart", "stop app1", ["revive app1"]),
        # Never two at a time here either.
        ("restart", "gate app1", ["halt app1", "revive app1", "adopt app1", "discard app1"]),
        ("blue_green", "settle app1, app2", []),
    ],
)
def test_the_way_back(strategy: str, failed: str, expected: list[str]) -> None:
    assert back(strategy, failed, "app1", "app2") == expected


def test_a_rollback_is_proven_before_it_gets_traffic() -> None:
    assert short(rollback(["app1"], LIMITS)) == [
        "revive app1",
        "traffic app1 0 %",
        "drain app1",
        "adopt app1",
        "settle app1",
    ]


def test_the_way_back_of_a_rollback() -> None:
    taken = rollback(["app1"], LIMITS)
    ways = {
        step.phase: short(back_from_rollback(taken[: number + 1], ["app1"], LIMITS))
        for number, step in enumerate(taken)
    }
    assert ways == {
        "revive": ["halt app1"],
        "traffic": ["traffic app1 100 %", "halt app1"],
        "drain": ["traffic app1 100 %", "halt app1"],
        # Of several hosts it may have come to some.
        "adopt": ["resume app1", "traffic app1 100 %", "readopt app1"],
        # The other slot has stopped: nothing is there to go back to.
        "settle": [],
    }


def test_a_rollback_of_what_runs_alone_goes_host_by_host() -> None:
    there = rollback(["app1", "app2"], LIMITS, alone=True)
    assert short(there) == [
        "stop app1",
        "revive app1",
        "traffic app1 0 %, app2 100 %",
        "adopt app1",
        "stop app2",
        "revive app2",
        "traffic app1 0 %, app2 0 %",
        "adopt app2",
        "settle app1, app2",
    ]
    # The second host fails while the first one serves the kept release.
    assert short(back_from_rollback(there[:6], ["app1", "app2"], LIMITS)) == [
        "halt app2",
        "resume app2",
        "halt app1",
        "resume app1",
        "traffic app1 100 %, app2 100 %",
        "readopt app1",
    ]


# What a step makes of the slot that served before it all, and of the other one.
EFFECTS: dict[str, dict[str, tuple[bool | None, bool | None]]] = {
    "upgrade": {
        "stop": (False, None),
        "start": (None, True),
        "finish": (False, None),
        "halt": (None, False),
        "revive": (True, None),
        "adopt": (True, False),
    },
    "rollback": {
        "stop": (False, None),
        "revive": (None, True),
        "adopt": (False, True),
        "halt": (None, False),
        "resume": (True, None),
        "readopt": (True, False),
    },
}


@pytest.mark.parametrize("kind", EFFECTS)
@pytest.mark.parametrize("hosts", [HOSTS, HOSTS[:1]], ids=["three hosts", "one host"])
def test_what_runs_alone_never_meets_itself_and_others_serve_meanwhile(kind: str, hosts: tuple[str, ...]) -> None:
    upgrade = kind == "upgrade"
    there = schedule("restart", hosts, hosts, LIMITS) if upgrade else rollback(hosts, LIMITS, alone=True)
    back = way_back if upgrade else back_from_rollback
    for taken in range(1, len(there) + 1):
        run = {host: [True, False] for host in hosts}
        for step in [*there[:taken], *back(there[:taken], hosts, LIMITS)]:
            effects = EFFECTS[kind].get(step.phase, (None, None))
            for host in step.hosts:
                run[host] = [was if now is None else now for was, now in zip(run[host], effects, strict=True)]
                assert run[host] != [True, True], (there[taken - 1].name, step.name)
            assert sum(any(slots) for slots in run.values()) >= len(hosts) - 1, (there[taken - 1].name, step.name)
        assert all(any(slots) for slots in run.values()), there[taken - 1].name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_slot_that_has_lost_its_traffic_stands_in_until_it_settles(strategy: str) -> None:
    found = steps(strategy, *HOSTS)
    assert [step.phase for step in found if step.phase == "settle"] == ["settle"] and found[-1].phase == "settle"
    assert all(step.guard for step in found if 100 in step.shares.values() and step.phase == "traffic")
    # On the way back the slot that is left has failed.
    assert not any(step.guard for step in way_back(found[:-1], HOSTS, LIMITS))


def test_a_step_says_how_long_it_may_take() -> None:
    found = {step.phase: step.seconds for step in steps("blue_green", "app1")}
    assert (found["start"], found["soak"], found["drain"], found["finish"]) == (180, 7, 30, 120)
    # Asked (2 + 3) times, 2 s apart, with 3 s for an answer.
    assert found["gate"] == 25


def test_a_copy_is_kept_before_anything_may_migrate_the_database() -> None:
    steps = schedule("blue_green", ["app1"], ["app1", "db"], LIMITS, rehearsed_on=["app1"], copied_on=["db"])
    phases = [step.phase for step in steps]
    assert phases.index("rehearse") < phases.index("copy") < phases.index("start")


def test_a_database_is_put_back_while_nobody_serves_and_again_if_that_fails() -> None:
    hosts = ["app1", "app2"]
    there = rollback(hosts, LIMITS, restored_on=["db"])
    assert [step.phase for step in there] == ["unpack", "stop", "swap", "revive", "traffic", "drain", "adopt"]
    for count, phases in (
        (1, ["forget"]),
        (2, ["resume", "forget"]),
        (3, ["swap_back", "resume", "forget"]),
        (4, ["halt", "swap_back", "resume", "forget"]),
        (5, ["halt", "swap_back", "resume", "traffic", "forget"]),
    ):
        back = back_from_rollback(there[:count], hosts, LIMITS)
        assert [step.phase for step in back] == phases
        assert {step.hosts for step in back if step.phase in ("swap_back", "forget")} == {("db",)}
