"""The schema step of a start: real statements on a real database, also the ones that go wrong on purpose."""

from __future__ import annotations

import tempfile

from pg8000.exceptions import DatabaseError
from pg8000.native import Connection, identifier

from . import log
from .built_in import BuiltIn
from .database import words

EXTENSIONS = {2025: ("uuid-ossp", "pg_trgm"), 2026: ("uuid-ossp", "pgcrypto", "pg_trgm", "btree_gin", "vector")}
ROLES = {"anon": "NOLOGIN", "authenticated": "NOLOGIN", "service_role": "NOLOGIN BYPASSRLS"}

# (since which version, name, statements), in order. Each is one transaction.
MIGRATIONS: list[tuple[tuple[int, ...], str, list[str]]] = [
    (
        (0,),
        "0001_items",
        [
            """CREATE TABLE app.items (
                 id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                 body text NOT NULL CHECK (length(body) BETWEEN 1 AND 2000),
                 written_by text NOT NULL DEFAULT '',
                 created_at timestamptz NOT NULL DEFAULT now())""",
            """CREATE FUNCTION app.announce_item() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN PERFORM pg_notify('app_items', row_to_json(NEW)::text); RETURN NEW; END $$""",
            """CREATE TRIGGER announce AFTER INSERT ON app.items
               FOR EACH ROW EXECUTE FUNCTION app.announce_item()""",
        ],
    ),
    (
        (0,),
        "0002_users",
        [
            """CREATE TABLE app.users (
                 id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email text NOT NULL UNIQUE, password text NOT NULL,
                 is_admin boolean NOT NULL DEFAULT false, created_at timestamptz NOT NULL DEFAULT now())""",
        ],
    ),
    (
        (0,),
        "0003_public_items",
        [
            "CREATE FUNCTION app.is_item_public(item bigint) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true'",
        ],
    ),
    ((2026,), "0004_item_search", ["CREATE INDEX items_body ON app.items USING gin (body gin_trgm_ops)"]),
    ((2026, 3, 5), "0005_item_age", ["CREATE INDEX items_created_at ON app.items (created_at)"]),
    ((2026, 3, 6), "0006_item_tags", ["ALTER TABLE app.items ADD COLUMN tags text[] NOT NULL DEFAULT '{}'"]),
]
OVERLOAD = (
    "CREATE OR REPLACE FUNCTION app.is_item_public(item bigint, tenant uuid) RETURNS boolean LANGUAGE sql STABLE"
    " AS 'SELECT true'"
)
IMPOSSIBLE = "CREATE INDEX items_tenant ON app.items (tenant_id)"
VARIANT_MIGRATIONS = {
    "failing-migration": [("9001_tenants", ["ALTER TABLE app.items ADD COLUMN region text", IMPOSSIBLE])],
    "poisonous-migration": [("9001_public_items_of_tenants", [OVERLOAD])],
    "ruinous-migration": [("9001_public_items_of_tenants", [OVERLOAD]), ("9002_tenants", [IMPOSSIBLE])],
}


class MigrationError(Exception):
    """The schema step failed; says where."""


def migrate(connection: Connection, build: BuiltIn) -> int:
    """Bring the database to this version's schema; returns how many migrations ran."""
    step = "prepare"
    try:
        # As the real one does from 2026.3.7 on, which puts its schema files there for another program.
        with tempfile.TemporaryFile(dir="/tmp"):  # noqa: S108 - in a folder that its unit has for itself
            pass
        _prepare(connection, build)
        done = {row[0] for row in connection.run("SELECT name FROM app.migrations")}
        ran = 0
        for step, statements in _wanted(build):
            if step in done:
                continue
            log.info("Applying migration", name=step)
            _transaction(connection, statements, step, build.version)
            ran += 1
        step = "functions"
        _redefine_functions(connection, build)
    except DatabaseError as error:
        raise MigrationError(f"migration {step}: {words(error)}") from error
    except OSError as error:
        raise MigrationError(f"migration {step}: {error}") from error
    return ran


def first_start(connection: Connection, build: BuiltIn) -> bool:
    """Whether this version never started on this database before; it counts as started from now on."""
    name = f"started {build.version} {build.variant}"
    rows = connection.run(
        "INSERT INTO app.migrations (name, version) VALUES (:name, :version) ON CONFLICT DO NOTHING RETURNING name",
        name=name,
        version=build.version,
    )
    return bool(rows)


def _wanted(build: BuiltIn) -> list[tuple[str, list[str]]]:
    regular = [(name, statements) for since, name, statements in MIGRATIONS if build.number >= since]
    return regular + VARIANT_MIGRATIONS.get(build.variant, [])


def _prepare(connection: Connection, build: BuiltIn) -> None:
    for extension in EXTENSIONS[build.generation]:
        connection.run(f"CREATE EXTENSION IF NOT EXISTS {identifier(extension)}")
    if build.generation >= 2026:
        present = {row[0] for row in connection.run("SELECT rolname FROM pg_roles")}
        for role, attributes in ROLES.items():
            if role not in present:
                connection.run(f"CREATE ROLE {identifier(role)} {attributes}")
    connection.run("CREATE SCHEMA IF NOT EXISTS app")
    connection.run(
        "CREATE TABLE IF NOT EXISTS app.migrations"
        " (name text PRIMARY KEY, version text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    if build.generation >= 2026:
        connection.run("GRANT USAGE ON SCHEMA app TO anon, authenticated, service_role")


def _transaction(connection: Connection, statements: list[str], name: str, version: str) -> None:
    connection.run("BEGIN")
    try:
        for statement in statements:
            connection.run(statement)
        connection.run(
            "INSERT INTO app.migrations (name, version) VALUES (:name, :version)", name=name, version=version
        )
    except DatabaseError:
        connection.run("ROLLBACK")
        raise
    connection.run("COMMIT")


def _redefine_functions(connection: Connection, build: BuiltIn) -> None:
    """State the functions anew, as every start does.

    Without their arguments, so that an overload which a later version left behind makes the name ambiguous:
    that is how the real program stays down after a failed upgrade.
    """
    arguments = "(bigint)" if build.variant == "poisonous-migration" else ""
    connection.run(f"COMMENT ON FUNCTION app.is_item_public{arguments} IS 'Whether everybody may read the item'")
