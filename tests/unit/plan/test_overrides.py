"""Settings of the inventory that would contradict the plan, or that do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from .fixtures import CHECKSUM, SECRETS, SERVICES, fluxbase, one_host, plan

JOBS = {"FLUXBASE_JOBS_ENABLED": "false"}


def of(**settings: Any) -> Any:
    return plan(one_host(fleet_services={"fluxbase": fluxbase(settings={**JOBS, **settings})}))


@pytest.mark.parametrize(
    ("name", "value", "words", "remedy"),
    [
        (
            "FLUXBASE_METRICS_PORT",
            "99999",
            "computes from {port.metrics}",
            "the port is set by fleet_services.fluxbase.ports.server.metrics.blue and .green",
        ),
        ("FLUXBASE_METRICS_PORT", 9091, "computes from {port.metrics}", "the port is set by"),
        (
            "FLUXBASE_SERVER_ADDRESS",
            "0.0.0.0:80",
            "computes from {listen} and {port.http}",
            "the port is set by fleet_services.fluxbase.ports.server.http.blue and .green",
        ),
        ("FLUXBASE_SERVER_ADDRESS", "0.0.0.0:{port.http}", "computes from {listen},", "nothing has to be set instead"),
        ("FLUXBASE_DATABASE_HOST", "db.example.com", "computes from {database.host}", "nothing has to be set instead"),
        (
            "FLUXBASE_DATABASE_MAX_CONNECTIONS",
            50,
            "computes from {database.connections}",
            "their number is set by fleet_services.fluxbase.database.connections",
        ),
    ],
)
def test_what_the_plan_computes(name: str, value: Any, words: str, remedy: str) -> None:
    (finding,) = of(**{name: value}).findings.items
    assert finding.variable == f"fleet_services.fluxbase.settings.{name}"
    assert words in finding.problem
    assert finding.remedy.startswith("Take it out; ") and remedy in finding.remedy


def test_everything_else_is_the_inventorys() -> None:
    made = of(
        FLUXBASE_PUBLIC_BASE_URL="https://www.example.com",
        FLUXBASE_DEBUG=True,
        FLUXBASE_REALTIME_MAX_CONNECTIONS="900",
        # It says the same, and a bit more.
        FLUXBASE_BASE_URL="http://{listen}:{port.http}/",
    )
    assert (made.findings.items, made.notes) == ([], [])


def test_a_configuration_file_is_no_way_around(tmp_path: Path) -> None:
    config = {
        "path": "/etc/notes/n.yml",
        "format": "yaml",
        "content": {"db": {"host": "{database.host}", "at": ["{listen}"]}, "level": "info"},
    }
    server = {
        "ports": {"http": {"blue": 1, "green": 2}},
        "config": config,
        "release": {"address": "https://example.com/x"},
    }
    notes = {
        "name": "notes",
        "description": "for a test",
        "components": {"server": server},
        "database": {"connections": 1},
        "secrets": {"NOTES_DATABASE_PASSWORD": {}},
        "contracts": [{"versions": ">=1"}],
    }
    (tmp_path / "notes.yml").write_text(yaml.safe_dump(notes))

    def found(given: dict[str, Any]) -> set[str]:
        entry = {
            "version": "1",
            "hosts": "app",
            "release": {"checksum": CHECKSUM},
            "secrets": {"NOTES_DATABASE_PASSWORD": SECRETS["FLUXBASE_DATABASE_PASSWORD"]},
            "config": given,
        }
        made = plan(one_host(fleet_services={"notes": entry}), tmp_path)
        return {finding.variable for finding in made.findings.items}

    assert found({"level": "debug", "db": {"name": "x"}}) == set()
    assert found({"db": {"host": "elsewhere"}}) == {"fleet_services.notes.config.db.host"}
    assert found({"db": {"at": ["0.0.0.0"]}}) == {"fleet_services.notes.config.db.at"}
    assert found({"db": "elsewhere"}) == {"fleet_services.notes.config.db"}


def test_a_secret_among_the_settings_would_be_shown() -> None:
    found = of(FLUXBASE_ENCRYPTION_KEY=SECRETS["FLUXBASE_ENCRYPTION_KEY"]).findings
    (finding,) = found.items
    assert finding.remedy == "Move it to fleet_services.fluxbase.secrets.FLUXBASE_ENCRYPTION_KEY"
    assert SECRETS["FLUXBASE_ENCRYPTION_KEY"] not in found.text()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FLUXBASE_CORS_ALLOWED_ORIGIN", "FLUXBASE_CORS_ALLOWED_ORIGINS"),
        ("FLUXBASE_METRICS_PROT", "FLUXBASE_METRICS_PORT"),
        ("FLUXBASE_DEBG", "FLUXBASE_DEBUG"),
        ("FLUXBASE_ENCRYPTON_KEY", "FLUXBASE_ENCRYPTION_KEY"),
        ("FLUXBASE_JOB_ENABLED", "FLUXBASE_JOBS_ENABLED"),
        ("FLUXBASE_STORAGE_PROVIDERS", "FLUXBASE_STORAGE_PROVIDER"),
    ],
)
def test_a_slip_of_the_pen_is_a_note_and_refuses_nothing(name: str, meant: str) -> None:
    made = of(**{name: "x"})
    assert made.findings.items == [] and made.hosts
    (note,) = made.notes
    assert f"settings.{name} is no setting" in note and f"and {meant} is" in note


def test_no_note_on_any_setting_of_the_definition() -> None:
    """Its own are alike among themselves, and are no slips."""
    definition = yaml.safe_load((SERVICES / "fluxbase.yml").read_text())
    names = {name for entry in definition["contracts"] for name in entry["components"]["server"]["settings"]}
    free = {
        name: "x"
        for name in names
        if "{" not in str(definition["contracts"][1]["components"]["server"]["settings"].get(name))
    }
    assert of(**free).notes == []
