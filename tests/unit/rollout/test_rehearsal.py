"""What a rehearsal's copy of the database is made with."""

from __future__ import annotations

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.database import Copy, as_wanted
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.door import configuration
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.lock import RehearsalError
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.place import Place

from ..plan.fixtures import one_host, three_tiers
from .said import one, serving


def test_the_copy_gets_what_the_real_database_gets_only_afterwards() -> None:
    assert as_wanted({"fluxbase": ["LOGIN", "CREATEROLE"]}, ["uuid-ossp", "vector"]) == [
        'ALTER ROLE "fluxbase" NOSUPERUSER NOCREATEDB CREATEROLE LOGIN NOREPLICATION NOBYPASSRLS',
        'CREATE EXTENSION IF NOT EXISTS "uuid-ossp" CASCADE',
        'CREATE EXTENSION IF NOT EXISTS "vector" CASCADE',
    ]
    assert as_wanted({'a"b': []}, []) == [
        'ALTER ROLE "a""b" NOSUPERUSER NOCREATEDB NOCREATEROLE NOLOGIN NOREPLICATION NOBYPASSRLS'
    ]


def test_the_plan_says_what_the_new_version_needs_of_its_database() -> None:
    rehearsal = one(one_host(), serving_with_probe("2026.3.4"))["rehearsal"]
    assert rehearsal["attributes"] == {"fluxbase": ["LOGIN", "CREATEROLE", "BYPASSRLS"]}
    assert "vector" in rehearsal["extensions"]


def serving_with_probe(version: str) -> dict[str, dict[str, dict[str, object]]]:
    found = serving(version, web1="blue")
    for note in found["web1"]["fluxbase"]["notes"]:
        note["probe"] = {"kind": "http", "url": "http://127.0.0.1:8081/health", "status": [200], "start_timeout": 180}
    return found


def test_who_joins_the_network_of_the_copy_finds_a_tmp_to_write_to() -> None:
    copy = Copy(Place(runner=SystemRunner(timeout=5), timeout=5), database="fluxbase", version=17, port=6432)
    unit = copy._postgres_unit().splitlines()
    assert {"PrivateNetwork=yes", "PrivateTmp=yes"} <= set(unit)


def test_a_copy_that_is_reached_from_another_host_lets_in_whom_the_real_one_does() -> None:
    place = Place(runner=SystemRunner(timeout=5), timeout=5)
    copy = Copy(place, database="shop", version=17, port=5431, attributes={"seller": []})
    assert copy._let_in().splitlines() == [
        "local all postgres peer",
        'hostssl "shop" "seller" 127.0.0.1/32 scram-sha-256',
    ]


def test_where_the_database_has_a_host_of_its_own_the_copy_is_there() -> None:
    found = serving_with_probe("2026.3.4")
    says = dict.fromkeys(("app1", "app2", "app3"), found["web1"])
    made = one(three_tiers(), says)["rehearsal"]
    assert (made["host"], made["home"], made["port"], made["copy_port"]) == ("app1", "db1", 6432, 5431)
    here = one(one_host(), serving_with_probe("2026.3.4"))["rehearsal"]
    assert (here["host"], here["home"]) == ("web1", "web1")


LIVE = """; Managed

[databases]
shop = host='10.0.0.3' port=5432 dbname='shop' pool_mode=transaction pool_size=5
fluxbase = host='10.0.0.3' port=5432 dbname='fluxbase' pool_mode=session pool_size=42

[pgbouncer]
%include /etc/pgbouncer/listen.ini
auth_type = hba
server_tls_sslmode = verify-full
"""


def test_a_door_is_the_pooler_of_one_database_and_listens_where_systemd_says() -> None:
    assert configuration(LIVE, "fluxbase", 5431) == (
        "[databases]\nfluxbase = host='10.0.0.3' port=5431 dbname='fluxbase' pool_mode=session pool_size=42\n\n"
        "[pgbouncer]\nunix_socket_dir =\nauth_type = hba\nserver_tls_sslmode = verify-full\n"
    )
    with pytest.raises(RehearsalError, match="has no database flux;"):
        configuration(LIVE, "flux", 5431)
