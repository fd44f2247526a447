"""The state of a component, from its note, systemd and its probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.filter.report import status_table
from ansible_collections.selfhost.fleet.plugins.module_utils.status import foundation, notes, renewal, state

NOTE = {
    "service": "fluxbase",
    "component": "server",
    "unit": "fluxbase-server",
    "version": "2026.3.6",
    "slot": "blue",
    "probe": {"kind": "http"},
}
ACTIVE = "ActiveState=active\nActiveEnterTimestamp=Sat 2026-11-21 14:50:00 UTC\nNRestarts=2\n"


def answer(ok: bool, words: str = "") -> Any:
    return lambda probe: (ok, words)


def test_active_and_healthy() -> None:
    found = state(NOTE, lambda unit: ACTIVE, answer(True))
    assert (found["unit"], found["health"], found["restarts"]) == ("fluxbase-server@blue.service", "healthy", 2)
    assert found["since"] == "Sat 2026-11-21 14:50:00 UTC"


def test_active_is_not_healthy() -> None:
    assert state(NOTE, lambda unit: ACTIVE, answer(False, "503"))["health"] == "not healthy: 503"


def test_a_failed_unit_is_not_probed() -> None:
    def never(probe: Any) -> tuple[bool, str]:
        raise AssertionError("a unit that does not run was probed")

    assert state(NOTE, lambda unit: "ActiveState=failed\nResult=exit-code\n", never)["health"] == "failed (exit-code)"


def test_notes_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"unit": name}))
    assert [note["unit"] for note in notes(tmp_path)] == ["a", "b"]
    assert notes(tmp_path / "missing") == []


def test_what_components_stand_on() -> None:
    listing = (
        "nginx.service loaded active running A web server\n"
        "pgbouncer.service not-found inactive dead pgbouncer.service\n"
        "postgresql@17-main.service loaded failed failed PostgreSQL Cluster 17-main\n"
    )
    found = foundation(listing, lambda unit: ACTIVE if unit == "nginx.service" else "ActiveState=failed\n")
    assert [(entry["unit"], entry["health"]) for entry in found] == [
        ("nginx.service", "active"),
        ("postgresql@17-main.service", "failed"),
    ]


def test_the_table_names_every_host() -> None:
    component = state(NOTE, lambda unit: ACTIVE, answer(True))
    unit = {"unit": "nginx.service", "health": "active", "since": "-", "restarts": 0}
    hosts = {
        "app1": {"components": [component], "foundation": []},
        "edge1": {"components": [], "foundation": [unit]},
        "db2": {"components": [], "foundation": []},
        "db3": {"unreachable": True},
    }
    table = status_table([{"inventory_hostname": name, "status": found} for name, found in hosts.items()])
    rows = {line.split()[1]: line for line in table.splitlines()[1:]}
    assert "healthy" in rows["app1"]
    assert rows["edge1"].startswith("nginx ")
    assert "runs nothing" in rows["db2"]
    assert "did not answer" in rows["db3"]


def test_the_last_renewal_is_read_and_told(tmp_path: Path) -> None:
    note = tmp_path / "renewal"
    assert renewal(note) is None
    note.write_text("exit-code 2026-11-21T14:50:00Z\n")
    found = {"components": [], "foundation": [], "certificates": [], "renewal": renewal(note)}
    certificate = {
        "name": "api.example.com",
        "days_left": 62,
        "until": "2027-01-22 14:50 UTC",
        "health": "62 days left",
    }
    found["certificates"] = [certificate]
    table = status_table([{"inventory_hostname": "web1", "status": found}])
    assert "62 days left" in table
    assert "until 2027-01-22 14:50 UTC" in table
    assert "last renewal failed (exit-code)" in table
    assert "2026-11-21T14:50:00Z" in table
    note.write_text("success 2026-11-21T14:50:00Z\n")
    assert "succeeded" in status_table([{"inventory_hostname": "web1", "status": {**found, "renewal": renewal(note)}}])
