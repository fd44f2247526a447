"""The databases in PgBouncer's configuration on a host."""

from __future__ import annotations

from pathlib import Path

import yaml
from ansible_collections.selfhost.fleet.plugins.module_utils.pools import OURS, pools
from jinja2 import Environment

ROLE = Path(__file__).resolve().parents[2] / "roles" / "pooler"

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


def written(path: Path, *, keep: dict[str, str]) -> dict[str, str]:
    """What the role writes for one pool of the plan."""
    environment = Environment(trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 (no HTML)
    pool = {"name": "app", "host": "127.0.0.1", "port": 5432, "database": "app", "mode": "session", "size": 42}
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    fleet = {"pooler": {"pools": [pool], "max_client_conn": 84}, "os": "debian-13"}
    values = {**defaults, "pooler_keep": keep, "fleet": fleet, "__pooler_prepared_statements": {"debian-13": True}}
    template = (ROLE / "templates" / "pgbouncer.ini.j2").read_text()
    path.write_text(environment.from_string(template).render(values))
    return pools(path)


def test_the_role_keeps_what_it_is_told_to_and_the_plan_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "pgbouncer.ini"
    alone = written(path, keep={})
    assert list(alone) == ["app"] and "pool_size=42" in alone["app"]
    former = {"app": "pool_size=1"} | {f"gone{number}": f"dbname='gone{number}' pool_size=10" for number in (3, 1, 2)}
    found = written(path, keep=former)
    assert found == former | alone
    # In their order, or a file that is the same would be written anew.
    assert list(found) == ["app", "gone3", "gone1", "gone2"]
