"""The state of a component, from its note, systemd and its probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.status import notes, state

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
