# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SQL as data: comparable in tests, printable without secrets, composed by the driver, not by string formatting."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

MAINTENANCE_DATABASE = "postgres"
MASK = "********"
_PLAIN_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")


class StatementError(Exception):
    """A statement that names something it was not given."""


@dataclass(frozen=True)
class Identifier:
    name: str


@dataclass(frozen=True)
class Literal:
    value: str | int


@dataclass(frozen=True)
class Secret:
    value: str = field(repr=False)


class Keyword(Enum):
    """Words that stand in a statement as they are. Nothing else does: no keyword ever comes from an option's text."""

    SUPERUSER = "SUPERUSER"
    NOSUPERUSER = "NOSUPERUSER"
    CREATEDB = "CREATEDB"
    NOCREATEDB = "NOCREATEDB"
    CREATEROLE = "CREATEROLE"
    NOCREATEROLE = "NOCREATEROLE"
    INHERIT = "INHERIT"
    NOINHERIT = "NOINHERIT"
    LOGIN = "LOGIN"
    NOLOGIN = "NOLOGIN"
    REPLICATION = "REPLICATION"
    NOREPLICATION = "NOREPLICATION"
    BYPASSRLS = "BYPASSRLS"
    NOBYPASSRLS = "NOBYPASSRLS"
    CONNECT = "CONNECT"
    CREATE = "CREATE"
    TEMPORARY = "TEMPORARY"
    USAGE = "USAGE"


Part: TypeAlias = Identifier | Literal | Secret | tuple[Identifier, ...] | tuple[Literal, ...] | tuple[Keyword, ...]


@dataclass(frozen=True)
class Statement:
    """One statement; `subject` is how a failure names what it was about ("role fluxbase")."""

    subject: str
    template: str
    parts: dict[str, Part] = field(default_factory=dict)
    database: str = MAINTENANCE_DATABASE
    transactional: bool = True

    def text(self) -> str:
        """For people: reports, differences, failures. Secrets are masked."""
        return self.template.format(**{name: _shown(part) for name, part in self.parts.items()})

    def compose(self, sql: Any) -> Any:
        """For the server; `sql` is psycopg's module of that name, which a controller need not have."""
        return sql.SQL(self.template).format(**{name: _composed(part, sql) for name, part in self.parts.items()})


def keywords(names: list[str]) -> tuple[Keyword, ...]:
    try:
        return tuple(Keyword[name] for name in names)
    except KeyError as error:
        raise StatementError(f"{error.args[0]} is no attribute or privilege that this collection knows.") from error


def _shown(part: Part) -> str:
    if isinstance(part, tuple):
        separator = " " if part and isinstance(part[0], Keyword) and part[0].name not in _PRIVILEGES else ", "
        return separator.join(item.value if isinstance(item, Keyword) else _shown(item) for item in part)
    if isinstance(part, Identifier):
        return part.name if _PLAIN_IDENTIFIER.fullmatch(part.name) else '"' + part.name.replace('"', '""') + '"'
    if isinstance(part, Secret):
        return f"'{MASK}'"
    return str(part.value) if isinstance(part.value, int) else "'" + part.value.replace("'", "''") + "'"


_PRIVILEGES = frozenset({"CONNECT", "CREATE", "TEMPORARY", "USAGE"})


def _composed(part: Part, sql: Any) -> Any:
    if isinstance(part, tuple):
        separator = " " if part and isinstance(part[0], Keyword) and part[0].name not in _PRIVILEGES else ", "
        return sql.SQL(separator).join(
            [sql.SQL(item.value) if isinstance(item, Keyword) else _composed(item, sql) for item in part]
        )
    if isinstance(part, Identifier):
        return sql.Identifier(part.name)
    return sql.Literal(part.value)
