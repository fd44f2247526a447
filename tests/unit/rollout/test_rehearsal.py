"""What a rehearsal's copy of the database is made with."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal import Rehearsal, as_wanted

from ..plan.fixtures import one_host
from .test_rollout import one, serving


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
    rehearsal = Rehearsal(database="fluxbase", version=17, port=6432, runner=SystemRunner(timeout=5), timeout=5)
    unit = rehearsal._postgres_unit(Path("/data")).splitlines()
    assert {"PrivateNetwork=yes", "PrivateTmp=yes"} <= set(unit)
