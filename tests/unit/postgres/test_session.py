"""How statements become transactions, and what a failure says. The driver is invented; integration tests have the real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import ClusterError
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.session import Session
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.statement import Identifier, Secret, Statement


class DriverError(Exception):
    pass


class Text:
    def __init__(self, text: str) -> None:
        self.text = text

    def format(self, **parts: Any) -> str:
        return self.text.format(**parts)


class Connection:
    def __init__(self, log: list[str], database: str, refused: str) -> None:
        self.log, self.database, self.refused = log, database, refused

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.log.append(f"{self.database}: begin")
        try:
            yield
        except DriverError:
            self.log.append(f"{self.database}: rollback")
            raise
        self.log.append(f"{self.database}: commit")

    def execute(self, statement: str) -> None:
        self.log.append(f"{self.database}: {statement}")
        if self.refused and self.refused in statement:
            raise DriverError("no such thing")

    def close(self) -> None:
        self.log.append(f"{self.database}: close")


def session(log: list[str], refused: str = "") -> Session:
    sql = SimpleNamespace(SQL=Text, Identifier=lambda name: f'"{name}"', Literal=lambda value: f"'{value}'")
    driver = SimpleNamespace(
        sql=sql, Error=DriverError, connect=lambda **options: Connection(log, options["dbname"], refused)
    )
    # Not a user of the system: nobody's identity is taken outside of root.
    return Session(socket=Path("/nowhere"), port=5432, user="root", driver=driver)


STATEMENTS = [
    Statement("role a", "CREATE ROLE {name} PASSWORD {password}", {"name": Identifier("a"), "password": Secret("s3")}),
    Statement("role b", "CREATE ROLE {name}", {"name": Identifier("b")}),
    Statement("database c", "CREATE DATABASE {name}", {"name": Identifier("c")}, transactional=False),
    Statement("database d", "CREATE DATABASE {name}", {"name": Identifier("d")}, transactional=False),
    Statement("extension e", "CREATE EXTENSION {name}", {"name": Identifier("e")}, database="c"),
]


def test_statements_in_a_row_are_one_transaction_but_those_that_may_not() -> None:
    log: list[str] = []
    with session(log) as opened:
        opened.execute(STATEMENTS)
    assert log == [
        "postgres: begin",
        "postgres: CREATE ROLE \"a\" PASSWORD 's3'",
        'postgres: CREATE ROLE "b"',
        "postgres: commit",
        'postgres: CREATE DATABASE "c"',
        'postgres: CREATE DATABASE "d"',
        "c: begin",
        'c: CREATE EXTENSION "e"',
        "c: commit",
        "postgres: close",
        "c: close",
    ]


def test_a_failure_names_the_object_and_says_what_stays() -> None:
    with session([], refused='DATABASE "d"') as opened, pytest.raises(ClusterError) as raised:
        opened.execute(STATEMENTS)
    said = str(raised.value)
    assert said.startswith("database d: no such thing (in database postgres: CREATE DATABASE d).")
    assert said.endswith("kept: CREATE ROLE a PASSWORD '********'; CREATE ROLE b; CREATE DATABASE c.")
    assert "s3" not in said


def test_a_failure_in_the_first_transaction_changed_nothing() -> None:
    log: list[str] = []
    with session(log, refused='ROLE "b"') as opened, pytest.raises(ClusterError, match="role b: .*Nothing was changed"):
        opened.execute(STATEMENTS)
    assert "postgres: rollback" in log


def test_variables_of_libpq_lead_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("PGSERVICE", "elsewhere")
    seen: list[bool] = []
    opened = session([])
    connect = opened.driver.connect
    opened.driver.connect = lambda **options: (seen.append("PGSERVICE" in os.environ), connect(**options))[1]
    opened.execute(STATEMENTS[:1])
    assert seen == [False]
    assert os.environ["PGSERVICE"] == "elsewhere"
