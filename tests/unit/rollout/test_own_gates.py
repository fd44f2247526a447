"""Gates that the inventory adds: when they are due, what they are told, and what is wrong with them before a host is touched."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.rollout import steps_text, way_back_from
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.own_gates import arguments, filled
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.schedule import STRATEGIES

from ..plan.fixtures import SEVERAL_HOSTS, fluxbase, one_host, plan, three_tiers
from .said import one, serving

SMOKE = {"name": "smoke", "command": ["/usr/local/bin/smoke", "--quick"], "timeout": 20}
ASKED = {"url": "http://monitor1:9090", "query": 'errors{slot="{slot}", host="{host}"}', "below": 0.01}
ERRORS = {"name": "errors", "prometheus": ASKED}


def services(*gates: dict[str, Any], **rollout: Any) -> dict[str, Any]:
    settings = {"FLUXBASE_JOBS_ENABLED": "false", **SEVERAL_HOSTS}
    return {"fluxbase": fluxbase(settings=settings, rollout={"rehearsal": "off", "gates": list(gates), **rollout})}


def rollout(*gates: dict[str, Any], hosts: int = 1, **rest: Any) -> dict[str, Any]:
    wanted = services(*gates, **rest)
    if hosts == 1:
        return one(one_host(fleet_services=wanted), serving("2026.3.4", web1="blue"))
    return one(three_tiers(fleet_services=wanted), serving("2026.3.4", app1="green", app2="blue", app3="blue"))


def names(made: dict[str, Any]) -> list[str]:
    late = [step["name"] for step in made["steps"]]
    return late[late.index(next(name for name in late if name.startswith("gate "))) :]


def test_a_command_is_tried_without_users_and_with_them_and_a_query_with_them() -> None:
    assert names(rollout(SMOKE, ERRORS)) == [
        "gate web1",
        "judge web1: smoke",
        "traffic web1 100 %",
        "soak web1",
        "judge web1 100 %: smoke, errors",
        "drain web1",
        "finish web1",
        "settle web1",
    ]


def test_each_share_of_a_canary_is_judged() -> None:
    assert names(rollout(ERRORS, strategy="canary", shares=[5, 40])) == [
        "gate web1",
        "traffic web1 5 %",
        "observe web1 5 %",
        "judge web1 5 %: errors",
        "traffic web1 40 %",
        "observe web1 40 %",
        "judge web1 40 %: errors",
        "traffic web1 100 %",
        "soak web1",
        "judge web1 100 %: errors",
        "drain web1",
        "finish web1",
        "settle web1",
    ]


@pytest.mark.parametrize(("when", "moments"), [("start", 1), ("traffic", 1), ("both", 2)])
def test_the_inventory_may_say_when(when: str, moments: int) -> None:
    judged = [step for step in rollout({**ERRORS, "when": when})["steps"] if step["phase"] == "judge"]
    assert len(judged) == moments
    assert (not judged[0]["shares"]) is (when != "traffic")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_whoever_ends_was_judged_with_users_and_whoever_has_users_without(strategy: str) -> None:
    steps = rollout(SMOKE, hosts=3, strategy=strategy)["steps"]
    fit: set[str] = set()
    proven: set[str] = set()
    for step in steps:
        if step["phase"] == "judge":
            fit |= set(step["hosts"]) if not step["shares"] else set()
            proven |= {host for host in step["hosts"] if step["shares"].get(host) == 100}
        if step["phase"] == "traffic":
            assert {host for host, share in step["shares"].items() if share} <= fit
        if step["phase"] in ("drain", "finish"):
            assert set(step["hosts"]) <= proven
    assert proven == {"app1", "app2", "app3"}
    # The ledger knows a step by its name.
    assert len({step["name"] for step in steps}) == len(steps)


def test_without_any_the_steps_are_as_before() -> None:
    assert [step["phase"] for step in rollout()["steps"] if step["phase"] == "judge"] == []


def test_the_list_of_steps_says_how_long_they_may_take() -> None:
    lines = steps_text(rollout(SMOKE, ERRORS)).splitlines()
    assert [line.split("  ")[-1] for line in lines if " judge " in line] == ["20 s at most", "80 s at most"]


def test_one_that_fails_is_taken_back_like_any_gate() -> None:
    made = rollout(ERRORS)
    done = made["steps"][: [step["phase"] for step in made["steps"]].index("judge") + 1]
    assert [step["name"] for step in way_back_from(made, done)] == ["traffic web1 0 %", "adopt web1", "discard web1"]


def judged(made: dict[str, Any], host: str) -> list[dict[str, Any]]:
    step = next(step for step in made["steps"] if step["phase"] == "judge" and step["shares"].get(host))
    return arguments(made, host, step)


def test_a_command_is_told_what_it_judges() -> None:
    made = rollout(SMOKE, hosts=3, strategy="canary", shares=[40])
    (found,) = judged(made, "app1")
    environment = found.pop("environment")
    assert found == {**SMOKE, "where": "host", "user": "nobody"}
    assert environment == {
        "FLEET_SERVICE": "fluxbase",
        "FLEET_VERSION": "2026.3.6",
        "FLEET_FORMER_VERSION": "2026.3.4",
        "FLEET_SLOT": "blue",
        "FLEET_HOST": "app1",
        "FLEET_ADDRESS": made["after"]["app1"]["address"],
        "FLEET_URL": f"http://{made['after']['app1']['address']}:8081",
        "FLEET_SITE": "https://api.example.com",
        "FLEET_SHARE": "40",
    }
    assert judged(made, "app2")[0]["environment"]["FLEET_URL"].endswith(":8082")
    first = next(step for step in made["steps"] if step["phase"] == "judge")
    assert arguments(made, "app1", first)[0]["environment"]["FLEET_SHARE"] == "0"


def test_a_query_is_of_the_new_slot() -> None:
    (found,) = judged(rollout(ERRORS, hosts=3), "app2")
    assert found == {
        "name": "errors",
        "timeout": 60,
        "prometheus": {**ASKED, "query": 'errors{slot="green", host="app2"}'},
    }


def test_placeholders_are_texts_within_quotes_and_all_else_is_left() -> None:
    words = {"version": '1.0"} or vector(1) #', "slot": "green"}
    assert filled('x{v="{version}"}', words) == 'x{v="1.0\\"} or vector(1) #"}'
    assert filled('sum by (slot) (x{slot="{slot}", le="{other}"}[1m])', words) == (
        'sum by (slot) (x{slot="green", le="{other}"}[1m])'
    )


@pytest.mark.parametrize(
    ("gate", "variable", "words"),
    [
        ({"name": "a"}, "", "has neither command nor prometheus"),
        ({**SMOKE, **ERRORS, "name": "a"}, "", "has both a command and a query"),
        ({"name": "a", "command": ["smoke.sh"]}, ".command.0", "no path from its root | Write where it lies there"),
        ({**SMOKE, "where": "controller", "user": "ada"}, ".user", "on the controller it runs as you"),
        ({**ERRORS, "where": "host"}, ".where", "Prometheus is asked from the controller | Take it out"),
        ({**ERRORS, "user": "ada"}, ".user", "is for a command"),
        ({"name": "a", "prometheus": {**ASKED, "below": None}}, ".prometheus.below", "is empty"),
        (
            {"name": "a", "prometheus": {"url": ASKED["url"], "query": "x"}},
            ".prometheus",
            "has no bound, so that every value would be right | Set below, above or both",
        ),
        ({"name": "a", "prometheus": {**ASKED, "above": 0.01}}, ".prometheus.above", "nothing is above that and below"),
        ({"name": "a", "prometheus": {**ASKED, "url": "monitor1:9090"}}, ".prometheus.url", "is no address"),
        ({"name": "a", "prometheus": {**ASKED, "url": "http://p/?x=1"}}, ".prometheus.url", "is no address"),
        ({"name": "a", "prometheus": {**ASKED, "url": "http://[::1"}}, ".prometheus.url", "is no address"),
        (
            {"name": "a", "prometheus": {**ASKED, "query": "x{a='{slto}'}"}},
            ".prometheus.query",
            "{slto} stands for nothing | Known are: {service}, {version}, {former}, {slot}, {host}, {address}, {http}, {metrics}",
        ),
        ({"name": "a", "comand": ["x"]}, ".comand", "is no known key"),
        ({**SMOKE, "name": "a\nb"}, ".name", "does not match"),
        ({"name": "a", "prometheus": {"url": "http://p"}}, ".prometheus.query", "is missing"),
        ({**SMOKE, "timeout": 0}, ".timeout", "less than the minimum"),
    ],
)
def test_what_is_wrong_is_found_before(gate: dict[str, Any], variable: str, words: str) -> None:
    found = {
        finding.variable: f"{finding.problem} | {finding.remedy}"
        for finding in plan(one_host(fleet_services=services(SMOKE, gate))).findings.items
    }
    assert words in found[f"fleet_services.fluxbase.rollout.gates.1{variable}"]


def test_two_of_one_name_and_a_login_that_is_never_shown() -> None:
    login = {"name": "a", "prometheus": {**ASKED, "url": "http://ada:t0psecret@monitor1:9090"}}
    text = plan(one_host(fleet_services=services(SMOKE, SMOKE, login))).findings.text()
    assert "fleet_services.fluxbase.rollout.gates.1.name\n     smoke is the name of another gate." in text
    assert "has a login in it" in text and "~/.netrc" in text
    assert "t0psecret" not in text


def test_what_is_right_has_no_finding() -> None:
    on_the_controller = {"name": "from outside", "command": ["./smoke.sh"], "where": "controller", "when": "traffic"}
    other = {"name": "metrics", "prometheus": {**ASKED, "query": 'up{instance="{address}:{metrics}"}', "above": 0}}
    assert plan(one_host(fleet_services=services(SMOKE, ERRORS, on_the_controller, other))).findings.items == []
