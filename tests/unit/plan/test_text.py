"""The plan as a person reads it."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.filter.report import addresses, plan_text

from .fixtures import one_host, plan

OWN = Path(__file__).parents[2] / "inventories" / "own" / "services"


def headings(text: str) -> list[str]:
    return [line.partition(" (")[0] for line in text.splitlines() if line and line.partition(" (")[0].isupper()]


def test_what_it_tells_of_a_fleet() -> None:
    text = plan_text(plan(one_host()).as_fact())
    assert headings(text) == ["HOSTS", "WHAT RUNS WHERE", "OPEN PORTS", "DATABASE CONNECTIONS"]
    assert "of max_connections 100" in text and "edge: HTTPS and WebSocket" in text


def test_connections_are_a_matter_of_fleets_with_a_database() -> None:
    ntfy = {"version": "2.11.0", "domain": "ntfy.example.com", "hosts": "app"}
    without = plan(one_host(groups={"postgres": []}, fleet_services={"ntfy": ntfy}), OWN)
    assert without.findings.items == []
    assert headings(plan_text(without.as_fact())) == ["HOSTS", "WHAT RUNS WHERE", "OPEN PORTS"]


def test_where_users_find_what_runs() -> None:
    assert addresses(plan(one_host()).as_fact()) == ["fluxbase 2026.3.6 on web1: https://api.example.com/"]
