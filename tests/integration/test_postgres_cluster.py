"""Roles, databases, extensions and grants on real servers; that nothing was written is proven, not believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

MODULE = "selfhost.fleet.postgres_cluster"
VERSIONS = {"debian-13": 17, "debian-12": 15}
PASSWORD = "pencil-Case_7"
VERIFIER = "{{ 'pencil-Case_7' | selfhost.fleet.scram_verifier('shop') }}"


def wish(**changes: Any) -> dict[str, Any]:
    return {
        "roles": [
            {
                "name": "shop",
                "attributes": ["LOGIN", "CREATEROLE"],
                "password_verifier": VERIFIER,
                "settings": {"search_path": ["$user", "public", "a,b"], "TimeZone": "UTC", "shop.flag": True},
            },
            {"name": "readers"},
            {"name": 'we"ird', "attributes": ["LOGIN", "NOINHERIT"], "member_of": ["readers"], "connection_limit": 3},
        ],
        "databases": [
            {"name": "shop", "owner": "shop", "extensions": ["pg_trgm", "uuid-ossp"], "connect": ['we"ird']},
            {"name": "O'Brien; --", "owner": "shop", "settings": {"statement_timeout": "5s"}},
        ],
        "grants": [
            {"database": "shop", "schema": "public", "role": "readers", "privileges": ["USAGE"]},
            {"database": "shop", "role": 'we"ird', "privileges": ["TEMP"]},
        ],
        **changes,
    }


def sql(host: Host, query: str, database: str = "postgres") -> str:
    host.put("/run/query.sql", query)
    return host.root(f"runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 {database} < /run/query.sql").stdout.strip()


def state(host: Host) -> str:
    """All that a dump holds, but for its random marks and its times."""
    return host.root(r"runuser -u postgres -- pg_dumpall | grep -Ev '^(-- |\\(un)?restrict)'").stdout


@contextmanager
def read_only(host: Host) -> Iterator[None]:
    """Every transaction that writes is refused meanwhile, and what the cluster holds is the same afterwards."""
    before = state(host)
    sql(host, "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf();")
    try:
        yield
    finally:
        sql(host, "SET transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only;")
        sql(host, "SELECT pg_reload_conf();")
    assert state(host) == before


@pytest.fixture(scope="module", params=list(VERSIONS))
def server(request: pytest.FixtureRequest, new_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host with PostgreSQL; before it was installed, check mode was tried on it."""
    made: Host = new_host("postgres", os=request.param)
    bare = Ansible(tmp_path_factory.mktemp("bare")).module(MODULE, wish(), made, check=True, diff=True)
    assert bare["changed"] is True
    assert bare["server_version"] == 0
    assert bare["data_checksums"] is None
    assert any(statement.startswith("CREATE DATABASE shop ") for statement in bare["statements"])
    assert "SCRAM-SHA-256" not in json.dumps(bare)
    version = VERSIONS[request.param]
    made.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; "
        f"apt-get install -qy --no-install-recommends postgresql-{version} python3-psycopg",
        timeout=600,
    )
    return made


def test_the_life_of_a_cluster(server: Host, ansible: Ansible) -> None:
    with read_only(server):
        foreseen = ansible.module(MODULE, wish(), server, check=True, diff=True)
    assert foreseen["changed"] is True
    assert foreseen["server_version"] in VERSIONS.values()

    first = ansible.module(MODULE, wish(), server, diff=True)
    assert first["statements"] == foreseen["statements"]
    assert first["diff"] == foreseen["diff"]
    assert "SCRAM-SHA-256$" not in json.dumps(first)

    # Read-only sessions refuse to write, and there is nothing to write.
    with read_only(server):
        second = ansible.module(MODULE, wish(), server)
        assert second["changed"] is False
        assert second["statements"] == []
        assert ansible.module(MODULE, wish(), server, check=True)["changed"] is False
        changed = wish(roles=[{"name": "shop", "attributes": ["LOGIN"]}])
        refused = ansible.module(MODULE, changed, server, expect_failure=True)
        assert "role shop: cannot execute ALTER ROLE in a read-only transaction" in refused["msg"]

    # The verifier made on the controller is right for the server, and a wrong password is not.
    login = "psql -XAtc 'SELECT current_user' 'host=127.0.0.1 dbname=shop user=shop'"
    assert server.root(f"PGPASSWORD={PASSWORD} {login}").stdout.strip() == "shop"
    assert server.root(f"PGPASSWORD=wrong {login}", check=False).returncode != 0
    assert sql(server, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1").splitlines() == [
        "O'Brien; --",
        "postgres",
        "shop",
        "template1",
    ]
    # Nothing of it was logged, not even with statements logged.
    logs = server.root("cat /var/log/postgresql/*.log; journalctl --no-pager").stdout
    assert "SCRAM-SHA-256$" not in logs
    assert PASSWORD not in logs


def test_what_was_changed_by_hand_is_put_right(server: Host, ansible: Ansible) -> None:
    ansible.module(MODULE, wish(), server)
    sql(
        server,
        "ALTER ROLE shop SUPERUSER; ALTER ROLE shop SET work_mem = '9MB'; ALTER DATABASE shop OWNER TO postgres;"
        " GRANT CONNECT ON DATABASE shop TO PUBLIC; GRANT CONNECT ON DATABASE shop TO readers;"
        " CREATE ROLE stranger; GRANT CONNECT ON DATABASE shop TO stranger;",
    )
    sql(server, "GRANT CREATE ON SCHEMA public TO readers; DROP EXTENSION pg_trgm;", "shop")
    outcome = ansible.module(MODULE, wish(), server)
    assert outcome["statements"] == [
        "ALTER ROLE shop NOSUPERUSER",
        "ALTER ROLE shop RESET work_mem",
        "ALTER DATABASE shop OWNER TO shop",
        "REVOKE CONNECT ON DATABASE shop FROM PUBLIC",
        "REVOKE CONNECT ON DATABASE shop FROM readers",
        "CREATE EXTENSION pg_trgm CASCADE",
        "REVOKE CREATE ON SCHEMA public FROM readers",
    ]
    assert ansible.module(MODULE, wish(), server)["changed"] is False
    # What nobody asked about is left: a service makes roles of its own.
    assert sql(server, "SELECT has_database_privilege('stranger', 'shop', 'CONNECT')") == "t"


def test_a_failure_names_its_object_and_changes_nothing_of_its_transaction(server: Host, ansible: Ansible) -> None:
    ansible.module(MODULE, wish(), server)
    before = state(server)
    asked = wish(roles=[{"name": "first"}, {"name": "second", "settings": {"work_mem": "much"}}])
    failed = ansible.module(MODULE, asked, server, expect_failure=True)
    assert failed["msg"].startswith('role second: invalid value for parameter "work_mem": "much"')
    assert "Nothing was changed" in failed["msg"]
    assert state(server) == before

    asked = wish(databases=[{"name": "shop", "owner": "nobody", "extensions": ["vector"]}])
    failed = ansible.module(MODULE, asked, server, expect_failure=True)
    assert "there is no role nobody" in failed["msg"]
    assert "-pgvector" in failed["msg"]
    assert state(server) == before


def test_settings_are_compared_and_a_missing_restart_is_reported(server: Host, ansible: Ansible) -> None:
    configuration = f"/etc/postgresql/{sql(server, 'SHOW server_version').split('.')[0]}/main/conf.d/20-test.conf"
    server.put(configuration, "work_mem = '8MB'\nmax_connections = 90\n")
    sql(server, "SELECT pg_reload_conf();")
    settings = {"work_mem": "8192kB", "max_connections": 90}
    outcome = ansible.module(MODULE, {"settings": settings}, server)
    assert outcome["changed"] is False
    assert outcome["pending_restart"] == ["max_connections"]

    sql(server, "ALTER SYSTEM SET work_mem = '1MB';")
    sql(server, "SELECT pg_reload_conf();")
    failed = ansible.module(MODULE, {"settings": settings}, server, expect_failure=True)
    assert "work_mem is 1MB" in failed["msg"]
    assert "postgresql.auto.conf" in failed["msg"]
    checked = ansible.module(MODULE, {"settings": settings}, server, check=True)
    assert checked["unmet_settings"] == [failed["msg"].split("for it: ")[1].split(". Look")[0]]
    sql(server, "ALTER SYSTEM RESET work_mem;")


def test_what_is_absent_goes_and_nothing_goes_by_omission(server: Host, ansible: Ansible) -> None:
    ansible.module(MODULE, wish(), server)
    assert ansible.module(MODULE, {}, server)["changed"] is False
    gone = {
        "databases": [{"name": name, "state": "absent"} for name in ("shop", "O'Brien; --")],
        "roles": [{"name": name, "state": "absent"} for name in ("shop", "readers", 'we"ird')],
    }
    assert ansible.module(MODULE, gone, server)["changed"] is True
    assert ansible.module(MODULE, gone, server)["changed"] is False


def test_a_cluster_that_does_not_answer_is_no_empty_cluster(server: Host, ansible: Ansible) -> None:
    data = sql(server, "SHOW data_directory")
    server.root("systemctl stop postgresql")
    try:
        failed = ansible.module(MODULE, wish(data_directory=data), server, check=True, expect_failure=True)
    finally:
        server.root("systemctl start postgresql")
    assert "/run/postgresql/.s.PGSQL.5432" in failed["msg"] or "Is the server running" in failed["msg"]
