# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a module's options to what a cluster shall be; all that is wrong with them is said at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import (
    ATTRIBUTES,
    ClusterError,
    Database,
    Desired,
    Grant,
    Role,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.scram import ScramError, parse_verifier

# CONNECT is given by the option `connect` of a database.
DATABASE_PRIVILEGES = frozenset({"CREATE", "TEMPORARY"})
SCHEMA_PRIVILEGES = frozenset({"CREATE", "USAGE"})
MAX_NAME_BYTES = 63
_UNQUOTED = re.compile(r"[a-z_][a-z0-9_$]*")
# Settings whose value is a list of names, each kept as an identifier.
_QUOTED_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
    }
)


def parse(
    *,
    roles: list[Mapping[str, Any]],
    databases: list[Mapping[str, Any]],
    grants: list[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> Desired:
    problems: list[str] = []
    for kind, entries in (("roles", roles), ("databases", databases)):
        counted = Counter(entry["name"] for entry in entries)
        problems += [f"{kind}: {name} is listed {count} times." for name, count in counted.items() if count > 1]
        problems += [f"{kind}: {problem}" for name in counted if (problem := _name_problem(name))]
    desired = Desired(
        roles=tuple(_role(entry, problems) for entry in roles),
        databases=tuple(_database(entry) for entry in databases),
        grants=tuple(_grant(entry, problems) for entry in grants),
        settings=_settings(settings),
    )
    if problems:
        raise ClusterError("\n".join(problems))
    return desired


def setting_text(name: str, value: object) -> str:
    """A setting's value as PostgreSQL keeps it. YAML turns `on` into a boolean; a list of names becomes one text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(_listed(str(item)) if name in _QUOTED_LISTS else str(item) for item in value)
    return str(value)


def setting_items(name: str, text: str) -> tuple[str, ...]:
    """The inverse for ALTER ... SET, where each name of a list is a literal of its own."""
    if name not in _QUOTED_LISTS:
        return (text,)
    items = re.findall(r'\s*("(?:[^"]|"")*"|[^,]+)\s*(?:,|$)', text)
    return tuple(item[1:-1].replace('""', '"') if item.startswith('"') else item.strip() for item in items) or ("",)


def _settings(settings: Mapping[str, Any]) -> dict[str, str]:
    # PostgreSQL takes a name in any case and keeps it in its own (TimeZone).
    return {name.lower(): setting_text(name.lower(), value) for name, value in settings.items()}


def _listed(item: str) -> str:
    return item if _UNQUOTED.fullmatch(item) else '"' + item.replace('"', '""') + '"'


def _name_problem(name: str) -> str:
    if not name:
        return "a name is empty."
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        return f"{name} is longer than {MAX_NAME_BYTES} bytes; PostgreSQL would cut it short."
    return "a name holds a zero byte." if "\0" in name else ""


def _role(entry: Mapping[str, Any], problems: list[str]) -> Role:
    name = entry["name"]
    attributes = {str(attribute).upper() for attribute in entry.get("attributes") or ()}
    known = {*ATTRIBUTES, *(f"NO{attribute}" for attribute in ATTRIBUTES)}
    if unknown := sorted(attributes - known):
        problems.append(f"roles: {name}: {', '.join(unknown)}: no such attribute; there are {', '.join(ATTRIBUTES)}.")
    if both := sorted(
        attribute for attribute in ATTRIBUTES if attribute in attributes and f"NO{attribute}" in attributes
    ):
        problems.append(f"roles: {name}: {', '.join(both)} is both asked for and refused.")
    wanted = {attribute for attribute in attributes if attribute in ATTRIBUTES}
    if "NOINHERIT" not in attributes:
        wanted.add("INHERIT")
    verifier = entry.get("password_verifier")
    if verifier is not None:
        try:
            parse_verifier(verifier)
        except ScramError as error:
            problems.append(f"roles: {name}: password_verifier: {error}")
    settings = entry.get("settings")
    return Role(
        name=name,
        present=entry.get("state", "present") == "present",
        attributes=frozenset(wanted),
        verifier=verifier,
        connection_limit=entry.get("connection_limit", -1),
        member_of=None if entry.get("member_of") is None else frozenset(entry["member_of"]),
        settings=None if settings is None else _settings(settings),
    )


def _database(entry: Mapping[str, Any]) -> Database:
    settings = entry.get("settings")
    return Database(
        name=entry["name"],
        present=entry.get("state", "present") == "present",
        owner=entry.get("owner") or "postgres",
        encoding=entry.get("encoding") or "UTF8",
        locale=entry.get("locale"),
        extensions=tuple(entry.get("extensions") or ()),
        settings=None if settings is None else _settings(settings),
        connect=frozenset(entry.get("connect") or ()),
    )


def _grant(entry: Mapping[str, Any], problems: list[str]) -> Grant:
    privileges = frozenset("TEMPORARY" if text.upper() == "TEMP" else text.upper() for text in entry["privileges"])
    schema = entry.get("schema")
    known = DATABASE_PRIVILEGES if schema is None else SCHEMA_PRIVILEGES
    if unknown := sorted(privileges - known):
        problems.append(
            f"grants: {entry['role']} on {entry['database']}{'.' + schema if schema else ''}: {', '.join(unknown)}: "
            f"no such privilege on a {'schema' if schema else 'database'}; there are {', '.join(sorted(known))}."
        )
    return Grant(database=entry["database"], role=entry["role"], privileges=privileges, schema=schema)
