"""The databases in PgBouncer's configuration on a host."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.pools import OURS, pools

SECTIONS = """
[databases]
app = host='127.0.0.1' port=5432 dbname='app' pool_size=42
; gone = host='127.0.0.1'
other = host='db=1'

[pgbouncer]
max_client_conn = 84
"""


def test_each_database_has_its_lines_options(tmp_path: Path) -> None:
    path = tmp_path / "pgbouncer.ini"
    path.write_text(f"{OURS}; changes are overwritten.\n{SECTIONS}")
    assert pools(path) == {
        "app": "host='127.0.0.1' port=5432 dbname='app' pool_size=42",
        "other": "host='db=1'",
    }


def test_what_the_role_did_not_write_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "pgbouncer.ini"
    assert pools(path) == {}
    path.write_text(SECTIONS)
    assert pools(path) == {}
