"""What serves on a host, by its notes and its records of rollouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.serving import serving


def note(slot: str, version: str, component: str = "server") -> dict[str, Any]:
    return {"service": "app", "component": component, "unit": f"app-{component}", "slot": slot, "version": version}


def test_a_host_of_a_service_with_a_kept_release_and_a_rollout_that_was_cut_off(tmp_path: Path) -> None:
    folder, records = tmp_path / "services", tmp_path / "rollouts"
    (folder / "slots").mkdir(parents=True)
    (records / "app").mkdir(parents=True)
    (folder / "app-server.json").write_text(json.dumps(note("green", "2.0")))
    for slot, version in (("blue", "1.0"), ("green", "2.0")):
        (folder / "slots" / f"app-server@{slot}.json").write_text(json.dumps(note(slot, version)))
    for name, text in (
        (
            "1",
            json.dumps(
                {"id": "1", "outcome": "done", "from": {"version": "1.0"}, "to": {"version": "2.0"}, "way_back": True}
            ),
        ),
        (
            "2",
            json.dumps(
                {"id": "2", "outcome": "unfinished", "strategy": "rolling", "from": None, "to": {"version": "3.0"}}
            ),
        ),
        ("3", "{half of"),
    ):
        (records / "app" / f"{name}.json").write_text(text)
    assert serving(folder, records) == {
        "app": {
            "slot": "green",
            "version": "2.0",
            "notes": [note("green", "2.0")],
            "kept": [note("blue", "1.0")],
            "unfinished": [{"id": "2", "version": "3.0", "former": "", "strategy": "rolling"}],
            "ways_back": [{"present": "2.0", "former": "1.0"}],
        }
    }


def test_a_bare_host(tmp_path: Path) -> None:
    assert serving(tmp_path / "none", tmp_path / "none") == {}
