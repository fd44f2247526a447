# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads a cluster: four queries, and one more in each database of which something inside is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import (
    ATTRIBUTES,
    ActualDatabase,
    ActualRole,
    ActualSetting,
    Cluster,
    Desired,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.statement import MAINTENANCE_DATABASE

ROLES = """
SELECT r.rolname AS name, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolinherit, r.rolcanlogin, r.rolreplication,
       r.rolbypassrls, r.rolconnlimit AS connection_limit, r.rolpassword AS verifier,
       coalesce(s.setconfig, '{}') AS settings,
       array(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
              WHERE m.member = r.oid) AS member_of
  FROM pg_authid r LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase = 0
"""
DATABASES = """
SELECT d.datname AS name, pg_get_userbyid(d.datdba) AS owner, pg_encoding_to_char(d.encoding) AS encoding,
       d.datcollate AS locale, coalesce(s.setconfig, '{}') AS settings,
       array(SELECT concat_ws(chr(9), CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END,
                              a.privilege_type)
               FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
              WHERE a.grantee <> d.datdba) AS privileges
  FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
"""
# Of the files, the last word counts. A session's own view is no answer: it has settings of its own, and over a local
# socket no keepalives at all.
SETTINGS = """
WITH files AS MATERIALIZED (
  SELECT DISTINCT ON (lower(name)) lower(name) AS name, setting, sourcefile || ':' || sourceline AS source, error
    FROM pg_file_settings WHERE name IS NOT NULL ORDER BY lower(name), seqno DESC)
SELECT s.name, coalesce(f.setting, s.setting) AS value, s.unit, s.vartype AS kind, s.pending_restart,
       coalesce(f.source, s.source) AS source, f.error
  FROM pg_settings s LEFT JOIN files f ON f.name = lower(s.name)
 WHERE s.pending_restart OR lower(s.name) = ANY (%s)
"""
GENERAL = """
SELECT current_setting('server_version_num')::int / 10000 AS version,
       current_setting('data_checksums') = 'on' AS data_checksums,
       CASE WHEN current_setting('data_checksums') = 'off'
            THEN (SELECT sum(pg_database_size(oid))::bigint FROM pg_database) END AS size,
       array(SELECT name::text FROM pg_available_extensions) AS names
"""
INSIDE = """
SELECT array(SELECT extname || chr(9) || extversion FROM pg_extension) AS extensions,
       array(SELECT concat_ws(chr(9), n.nspname, CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END,
                              a.privilege_type)
               FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
              WHERE a.grantee <> n.nspowner) AS schemas
"""
_COLUMNS = dict(
    zip(
        ATTRIBUTES,
        ("rolsuper", "rolcreatedb", "rolcreaterole", "rolinherit", "rolcanlogin", "rolreplication", "rolbypassrls"),
        strict=True,
    )
)

Row = Mapping[str, Any]


class Reader(Protocol):
    def rows(self, database: str, query: str, parameters: tuple[object, ...] = ()) -> list[Row]: ...


def read(reader: Reader, desired: Desired) -> Cluster:
    general = reader.rows(MAINTENANCE_DATABASE, GENERAL)[0]
    databases = {row["name"]: _database(row) for row in reader.rows(MAINTENANCE_DATABASE, DATABASES)}
    looked_into = {database.name for database in desired.databases if database.present and database.extensions}
    looked_into |= {grant.database for grant in desired.grants if grant.schema is not None}
    for name in sorted(looked_into & set(databases)):
        databases[name] = _inside(databases[name], reader.rows(name, INSIDE)[0])
    names = list(desired.settings)
    return Cluster(
        version=general["version"],
        data_checksums=general["data_checksums"],
        size=general["size"],
        roles={row["name"]: _role(row) for row in reader.rows(MAINTENANCE_DATABASE, ROLES)},
        databases=databases,
        settings={row["name"].lower(): _setting(row) for row in reader.rows(MAINTENANCE_DATABASE, SETTINGS, (names,))},
        available_extensions=frozenset(general["names"]),
    )


def _role(row: Row) -> ActualRole:
    return ActualRole(
        attributes=frozenset(attribute for attribute, column in _COLUMNS.items() if row[column]),
        connection_limit=row["connection_limit"],
        verifier=row["verifier"],
        settings=_settings(row["settings"]),
        member_of=frozenset(row["member_of"]),
    )


def _database(row: Row) -> ActualDatabase:
    return ActualDatabase(
        owner=row["owner"],
        encoding=row["encoding"],
        locale=row["locale"],
        settings=_settings(row["settings"]),
        privileges=_privileges(text.split("\t") for text in row["privileges"]),
    )


def _inside(database: ActualDatabase, row: Row) -> ActualDatabase:
    entries = [text.split("\t") for text in row["schemas"]]
    return ActualDatabase(
        owner=database.owner,
        encoding=database.encoding,
        locale=database.locale,
        settings=database.settings,
        privileges=database.privileges,
        extensions=_pairs(row["extensions"], "\t"),
        schemas={
            schema: _privileges(entry[1:] for entry in entries if entry[0] == schema)
            for schema in {entry[0] for entry in entries}
        },
    )


def _setting(row: Row) -> ActualSetting:
    return ActualSetting(
        value=row["value"],
        unit=row["unit"],
        kind=row["kind"],
        source=row["source"],
        pending_restart=row["pending_restart"],
        error=row["error"],
    )


def _settings(texts: Iterable[str]) -> dict[str, str]:
    return {name.lower(): value for name, value in _pairs(texts, "=").items()}


def _pairs(texts: Iterable[str], separator: str) -> dict[str, str]:
    return dict(text.split(separator, 1) for text in texts)


def _privileges(entries: Iterable[list[str]]) -> dict[str, frozenset[str]]:
    collected: dict[str, set[str]] = {}
    for grantee, privilege in entries:
        collected.setdefault(grantee, set()).add(privilege)
    return {grantee: frozenset(held) for grantee, held in collected.items()}
