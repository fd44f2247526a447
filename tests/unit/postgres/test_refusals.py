"""What is said of a PostgreSQL that refuses."""

from __future__ import annotations

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.session import remedy

SOCKET = 'connection to server on socket "/run/postgresql/.s.PGSQL.5432" failed: '


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (SOCKET + "FATAL:  sorry, too many clients already", "raise fleet_postgres.max_connections"),
        (SOCKET + "FATAL:  the database system is starting up", "run again in a moment"),
        (SOCKET + 'FATAL:  Peer authentication failed for user "postgres"', "local all postgres peer"),
        (SOCKET + "No such file or directory\n\tIs the server running locally?", "PostgreSQL does not run"),
        ('could not extend file "base/1": No space left on device', "free some space there"),
        ('column "x" does not exist', ""),
    ],
)
def test_what_to_do_is_said(said: str, words: str) -> None:
    found = remedy(RuntimeError(said))
    assert words in found and bool(found) is bool(words)
