"""What a webhook is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.news import fleet_name, news, one_reason

ROLLOUT: dict[str, Any] = {
    "service": "fluxbase",
    "kind": "upgrade",
    "strategy": "rolling",
    "id": "20261126-120000-2.0",
    "hosts": ["app1"],
    "from": {"app1": {"version": "1.0", "slot": "blue"}},
    "to": {"app1": {"version": "2.0", "slot": "green"}},
    "steps": [{"name": "start app1"}, {"name": "gate app1"}],
    "after": {"app1": {"much": "more"}},
}
NOON = 1795694400.0  # 2026-11-26, 12:00 UTC
BEGUN = [{"name": "start app1", "began": NOON}, {"name": "gate app1", "began": NOON + 4}]


def test_the_beginning() -> None:
    assert news(ROLLOUT, "started", moment=NOON, operator="ada@bridge", fleet="production") == {
        "event": "started",
        "fleet": "production",
        "service": "fluxbase",
        "kind": "upgrade",
        "strategy": "rolling",
        "id": "20261126-120000-2.0",
        "operator": "ada@bridge",
        "hosts": ["app1"],
        "from": {"app1": "1.0"},
        "to": {"app1": "2.0"},
        "at": "2026-11-26T12:00:00Z",
        "seconds": 0.0,
        "reason": "",
        "steps": [
            {"name": "start app1", "outcome": "planned", "seconds": None},
            {"name": "gate app1", "outcome": "planned", "seconds": None},
        ],
    }


def test_the_end() -> None:
    told = news(ROLLOUT, "done", moment=NOON + 6.5, begun=BEGUN)
    assert (told["at"], told["seconds"]) == ("2026-11-26T12:00:06Z", 6.5)
    assert told["steps"] == [
        {"name": "start app1", "outcome": "done", "seconds": 4.0},
        {"name": "gate app1", "outcome": "done", "seconds": 2.5},
    ]


def outcomes(event: str, failed: dict[str, Any]) -> list[str]:
    begun = [*BEGUN, {"name": "adopt app1", "began": NOON + 5}]
    return [step["outcome"] for step in news(ROLLOUT, event, moment=NOON + 9, begun=begun, failed=failed)["steps"]]


def test_which_step_failed() -> None:
    assert outcomes("rolled_back", BEGUN[1]) == ["done", "failed", "done"]
    assert outcomes("failed", BEGUN[1]) == ["done", "failed", "failed"]
    assert outcomes("rolled_back", {"name": "the beginning"}) == ["done", "done", "done"]
    assert news(ROLLOUT, "failed", moment=NOON)["steps"] == []


def test_a_reason_leaves_without_secrets() -> None:
    told = news(ROLLOUT, "rolled_back", moment=NOON, reason="start app1: postgres://fluxbase:hunter2@db1/ refused")
    assert told["reason"] == "start app1: postgres://fluxbase:***@db1/ refused"


def test_of_all_hosts_those_that_know_why() -> None:
    assert one_reason(["elsewhere", "no room", "no room", ""], "elsewhere") == "no room"
    assert one_reason(["elsewhere", "elsewhere"], "elsewhere") == "elsewhere"


def test_the_name_of_the_fleet(tmp_path: Path) -> None:
    folder = tmp_path / "production"
    folder.mkdir()
    (folder / "hosts.yml").touch()
    assert fleet_name([folder]) == fleet_name([folder / "hosts.yml"]) == "production"
    assert fleet_name([Path("app1,app2,")]) == ""
