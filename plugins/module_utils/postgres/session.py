# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connections to a cluster over its local socket, as its superuser."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import ClusterError
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.statement import Statement

CONNECT_TIMEOUT = 10
# A server that logs statements would log verifiers, too.
_QUIET = (
    "-c log_statement=none -c log_min_error_statement=panic "
    "-c log_min_duration_statement=-1 -c log_min_duration_sample=-1 -c track_activities=off"
)


# What PostgreSQL says while it refuses, and what to do about it.
_REMEDIES = (
    (
        r"too many clients|connection slots are reserved|too many connections",
        "All its connections are in use. SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2 "
        "shows by whom; end some, or raise fleet_postgres.max_connections. What is connected is served.",
    ),
    (
        r"starting up|in recovery mode|shutting down|not yet accepting",
        "It comes back from a crash or a restart: run again in a moment. /var/log/postgresql tells how far it is.",
    ),
    (
        r"authentication failed|no pg_hba.conf entry",
        "The module connects as the superuser over the local socket: pg_hba.conf needs the line 'local all postgres peer' "
        "above the others, which the role postgres writes.",
    ),
    (
        r"No space left on device|could not extend file|disk full",
        "The disk under its data directory is full: free some space there, and run again. What needs no more space goes on.",
    ),
    (
        r"No such file or directory|Connection refused",
        "PostgreSQL does not run: systemctl status 'postgresql@*' and the newest file in /var/log/postgresql say why.",
    ),
)


class StatementFailedError(ClusterError):
    """A statement that the server refused; what was done before it stays."""

    def __init__(self, statement: Statement, words: str, done: list[Statement]) -> None:
        before = (
            f" Done before that, and kept: {'; '.join(item.text() for item in done)}."
            if done
            else " Nothing was changed."
        )
        super().__init__(
            f"{statement.subject}: {words} (in database {statement.database}: {statement.text()}).{before}"
        )


class Session:
    """One connection per database. As root it takes the superuser's identity while it connects: peer authentication."""

    def __init__(self, *, socket: Path, port: int, user: str, driver: Any) -> None:
        self.socket, self.port, self.user, self.driver = socket, port, user, driver
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def rows(self, database: str, query: str, parameters: tuple[object, ...] = ()) -> list[Mapping[str, Any]]:
        try:
            cursor = self._connection(database).execute(query, parameters or None)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except self.driver.Error as error:
            raise ClusterError(f"database {database}: {words(error)}{remedy(error)}") from error

    def execute(self, statements: list[Statement]) -> None:
        """Statements in a row that share a database are one transaction, except what PostgreSQL allows in none."""
        done: list[Statement] = []
        position = 0
        for (database, transactional, _turn), group in groupby(statements, key=_transaction_key(statements)):
            batch = list(group)
            position += len(batch)
            self._run(database, batch, transactional, done)
            done += batch

    def _run(self, database: str, batch: list[Statement], transactional: bool, done: list[Statement]) -> None:
        current = batch[0]
        try:
            connection = self._connection(database)
            with connection.transaction() if transactional else _nothing():
                for current in batch:
                    connection.execute(current.compose(self.driver.sql))
        except self.driver.Error as error:
            raise StatementFailedError(current, f"{words(error)}{remedy(error)}", done) from error

    def _connection(self, database: str) -> Any:
        if database not in self._connections:
            with _without_libpq_environment(), _identity(self.user):
                self._connections[database] = self.driver.connect(
                    host=str(self.socket),
                    port=self.port,
                    user=self.user,
                    dbname=database,
                    autocommit=True,
                    connect_timeout=CONNECT_TIMEOUT,
                    options=_QUIET,
                    application_name="selfhost.fleet",
                    passfile=os.devnull,
                )
        return self._connections[database]


def _transaction_key(statements: list[Statement]) -> Callable[[Statement], tuple[str, bool, int]]:
    positions = {id(statement): index for index, statement in enumerate(statements)}
    return lambda item: (item.database, item.transactional, 0 if item.transactional else positions[id(item)])


def words(error: BaseException) -> str:
    """What the server said, in one line: its message, detail and hint."""
    diagnostics = getattr(error, "diag", None)
    said = [getattr(diagnostics, name, None) for name in ("message_primary", "message_detail", "message_hint")]
    text = ". ".join(part.rstrip(".") for part in said if part)
    return text or " ".join(str(error).split())


def remedy(error: BaseException) -> str:
    """What to do, as a sentence of its own; nothing where only the server's words help."""
    said = words(error)
    return next((f". {text}" for pattern, text in _REMEDIES if re.search(pattern, said)), "")


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _without_libpq_environment() -> Iterator[None]:
    """Variables of libpq (PGSERVICE, PGOPTIONS, ...) of whoever runs the module would lead elsewhere."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
    try:
        yield
    finally:
        os.environ.update(taken)


@contextmanager
def _identity(user: str) -> Iterator[None]:
    """PostgreSQL asks the kernel who connected: the effective user at that moment."""
    if os.geteuid() != 0:
        yield
        return
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise ClusterError(
            f"There is no system user {user} on this host, as whom to connect over the local socket."
        ) from error
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
