"""Since when what serves and its database run, as systemd tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.serving import uptimes, with_uptimes

SHOWN = """Id=postgresql@17-main.service
ActiveState=active
ActiveEnterTimestampMonotonic=95000000

Id=app-server@green.service
ActiveState=active
ActiveEnterTimestampMonotonic=40500000

Id=app-worker@green.service
ActiveState=active
ActiveEnterTimestampMonotonic=90000000

Id=notes-server@blue.service
ActiveState=failed
ActiveEnterTimestampMonotonic=10000000
"""


class Systemctl:
    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        return CommandResult(tuple(argv), 0, SHOWN)

    def which(self, executable: str) -> str | None:
        return executable


def test_the_oldest_unit_of_a_service_and_the_database() -> None:
    found = uptimes(Systemctl(), ["postgresql@*.service"], lambda: 100.0)
    assert found == {
        "postgresql@17-main.service": 5.0,
        "app-server@green.service": 59.5,
        "app-worker@green.service": 10.0,
    }
    services = {
        "app": {"notes": [{"unit": "app-server", "slot": "green"}, {"unit": "app-worker", "slot": "green"}]},
        "notes": {"notes": [{"unit": "notes-server", "slot": "blue"}]},
    }
    assert with_uptimes(services, found) == {"uptime": 5.0}
    assert {name: entry["uptime"] for name, entry in services.items()} == {"app": 59.5, "notes": None}


def test_a_host_without_anything() -> None:
    assert with_uptimes({}, {}) == {"uptime": None}
