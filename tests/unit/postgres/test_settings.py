"""Whether a server runs with what was written down for it."""

from __future__ import annotations

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import ActualSetting
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.settings import pending_restart, same, unmet


@pytest.mark.parametrize(
    ("wanted", "value", "unit", "kind", "expected"),
    [
        ("2GB", "262144", "8kB", "integer", True),
        ("2048MB", "262144", "8kB", "integer", True),
        ("1GB", "262144", "8kB", "integer", False),
        ("15min", "900", "s", "integer", True),
        ("0.9", "0.9", None, "real", True),
        ("1.1", "0.9", None, "real", False),
        ("100", "100", None, "integer", True),
        ("5s", "5000", "ms", "integer", True),
        ("1GB", "1024", "MB", "integer", True),
        ("-1", "-1", "kB", "integer", True),
        ("yes", "on", None, "bool", True),
        ("off", "on", None, "bool", False),
        ("TRY", "try", None, "enum", True),
        ("true", "on", None, "enum", True),
        ("a, b", "a, b", None, "string", True),
        ("much", "100", None, "integer", False),
        ("5 parsecs", "100", "ms", "integer", False),
    ],
)
def test_values_are_compared_as_postgresql_reads_them(
    wanted: str, value: str, unit: str | None, kind: str, expected: bool
) -> None:
    assert same(wanted, ActualSetting(value, unit, kind)) is expected


def test_what_waits_for_a_restart_is_pending_and_not_unmet() -> None:
    settings = {"max_connections": ActualSetting("100", None, "integer", pending_restart=True)}
    assert unmet({"max_connections": "200"}, settings) == []
    assert pending_restart(settings) == ["max_connections"]


def test_what_the_server_refuses_is_said_in_its_words() -> None:
    settings = {"ssl": ActualSetting("on", None, "bool", source="/etc/a.conf:1", error="setting could not be applied")}
    assert unmet({"ssl": "on"}, settings) == ["ssl: setting could not be applied (/etc/a.conf:1)"]


def test_what_another_file_overrides_is_named_with_its_place() -> None:
    settings = {"work_mem": ActualSetting("4096", "kB", "integer", source="/data/postgresql.auto.conf:3")}
    assert unmet({"work_mem": "8MB", "nonsense": "1"}, settings) == [
        "the server has no setting nonsense",
        "work_mem is 4096 (from /data/postgresql.auto.conf:3), not 8MB",
    ]
