# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The difference between two clusters, as statements. Pure: reads nothing, runs nothing.

Order: databases that go, roles, databases that come, what a database allows and sets, extensions and grants inside
each, roles that go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.desired import setting_items
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import (
    ATTRIBUTES,
    UNLIMITED,
    ActualDatabase,
    ActualRole,
    Cluster,
    ClusterError,
    Database,
    Desired,
    Grant,
    Role,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.statement import (
    MAINTENANCE_DATABASE,
    Identifier,
    Literal,
    Part,
    Secret,
    Statement,
    keywords,
)

# The same text everywhere, and its order never changes with a new C library, which corrupts indexes of other locales.
DEFAULT_LOCALE = "C.UTF-8"
PUBLIC = ""
_EXTENSION_PACKAGES = {
    "age": "postgresql-{version}-age",
    "hypopg": "postgresql-{version}-hypopg",
    "pg_cron": "postgresql-{version}-cron",
    "pg_partman": "postgresql-{version}-partman",
    "pg_repack": "postgresql-{version}-repack",
    "pgaudit": "postgresql-{version}-pgaudit",
    "pgrouting": "postgresql-{version}-pgrouting",
    "plpython3u": "postgresql-plpython3-{version}",
    "postgis": "postgresql-{version}-postgis-3",
    "rum": "postgresql-{version}-rum",
    "vector": "postgresql-{version}-pgvector",
}


def plan(cluster: Cluster, desired: Desired) -> list[Statement]:
    """What turns `cluster` into `desired`; empty if nothing does. Raises ClusterError with all that cannot be had."""
    problems = [*_impossible(cluster, desired)]
    if problems:
        raise ClusterError("\n".join(problems))
    managed = frozenset(role.name for role in desired.roles)
    present = [database for database in desired.databases if database.present]
    statements: list[Statement] = []
    for database in desired.databases:
        if not database.present and database.name in cluster.databases:
            name = Identifier(database.name)
            statements.append(
                Statement(f"database {database.name}", "DROP DATABASE {name}", {"name": name}, transactional=False)
            )
    for role in desired.roles:
        if role.present:
            statements += _alter_role(role, cluster.roles.get(role.name))
    # A role may be a member of one that is made after it.
    for role in desired.roles:
        if role.present:
            statements += _memberships(role, cluster.roles.get(role.name))
    for database in present:
        if database.name not in cluster.databases:
            statements.append(_create(database))
    for database in present:
        statements += _database(database, cluster.databases.get(database.name), managed)
    for database in present:
        statements += _extensions(database, cluster.databases.get(database.name))
    for grant in desired.grants:
        statements += _grant(grant, cluster.databases.get(grant.database))
    for role in desired.roles:
        if not role.present and role.name in cluster.roles:
            statements.append(Statement(f"role {role.name}", "DROP ROLE {name}", {"name": Identifier(role.name)}))
    return statements


def missing_extension(extension: str, version: int) -> str:
    package = _EXTENSION_PACKAGES.get(extension)
    where = (
        f"The package {package.format(version=version)} provides it"
        if package
        else f"Install the package that provides it for PostgreSQL {version}"
    )
    if extension == "vector" and version == 15:
        where += " (Debian 12 has none: use PostgreSQL's own apt repository, or a database host on Debian 13)"
    return f"extension {extension} is not available to this server. {where}."


def _impossible(cluster: Cluster, desired: Desired) -> Iterator[str]:
    known = {*cluster.roles, *(role.name for role in desired.roles if role.present)}
    bare = not cluster.roles
    for role in desired.roles:
        for group in sorted(role.member_of or ()):
            if not bare and group not in known:
                yield f"role {role.name}: member_of: there is no role {group}."
    databases = {*cluster.databases, *(database.name for database in desired.databases if database.present)}
    for database in desired.databases:
        if not database.present:
            continue
        if not bare:
            for name in sorted({database.owner, *database.connect} - known):
                yield f"database {database.name}: there is no role {name}."
        actual = cluster.databases.get(database.name)
        for extension in database.extensions:
            installed = actual is not None and extension in actual.extensions
            if (
                cluster.available_extensions is not None
                and not installed
                and extension not in cluster.available_extensions
            ):
                yield f"database {database.name}: {missing_extension(extension, cluster.version)}"
        if actual is not None:
            yield from _fixed_at_creation(database, actual)
    for grant in desired.grants:
        if not bare and grant.role not in known:
            yield f"grants: there is no role {grant.role}."
        if not bare and grant.database not in databases:
            yield f"grants: there is no database {grant.database}."


def _fixed_at_creation(database: Database, actual: ActualDatabase) -> Iterator[str]:
    remedy = "It is fixed when a database is made: dump it, make a new one and restore it there."
    if actual.encoding.upper() != database.encoding.upper():
        yield f"database {database.name} has the encoding {actual.encoding}, not {database.encoding}. {remedy}"
    if database.locale is not None and _locale(actual.locale) != _locale(database.locale):
        yield f"database {database.name} has the locale {actual.locale}, not {database.locale}. {remedy}"


def _locale(name: str) -> str:
    return name.lower().replace("-", "")


def _alter_role(role: Role, actual: ActualRole | None) -> Iterator[Statement]:
    subject = f"role {role.name}"
    clauses: list[str] = []
    parts: dict[str, Part] = {"name": Identifier(role.name)}
    now = actual if actual is not None else ActualRole(attributes=frozenset())
    changed = [
        attribute if attribute in role.attributes else f"NO{attribute}"
        for attribute in ATTRIBUTES
        if actual is None or (attribute in role.attributes) != (attribute in now.attributes)
    ]
    if changed:
        clauses.append("{attributes}")
        parts["attributes"] = keywords(changed)
    if role.connection_limit != (now.connection_limit if actual else UNLIMITED):
        clauses.append("CONNECTION LIMIT {limit}")
        parts["limit"] = Literal(role.connection_limit)
    if role.verifier is not None and role.verifier != now.verifier:
        clauses.append("PASSWORD {password}")
        parts["password"] = Secret(role.verifier)
    if actual is None or clauses:
        verb = "CREATE" if actual is None else "ALTER"
        yield Statement(subject, " ".join([f"{verb} ROLE {{name}}", *clauses]), parts)
    if role.settings is not None:
        yield from _settings(subject, "ROLE", role.name, role.settings, now.settings)


def _memberships(role: Role, actual: ActualRole | None) -> Iterator[Statement]:
    # Others are left: a service that makes roles of its own is a member of those.
    for group in sorted((role.member_of or frozenset()) - (actual.member_of if actual else frozenset())):
        yield Statement(
            f"role {role.name}", "GRANT {group} TO {name}", {"group": Identifier(group), "name": Identifier(role.name)}
        )


def _create(database: Database) -> Statement:
    # template0: only from it can a database have another encoding and locale than the cluster's own.
    return Statement(
        f"database {database.name}",
        "CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING {encoding} LOCALE {locale}",
        {
            "name": Identifier(database.name),
            "owner": Identifier(database.owner),
            "encoding": Literal(database.encoding),
            "locale": Literal(database.locale or DEFAULT_LOCALE),
        },
        transactional=False,
    )


def _database(database: Database, actual: ActualDatabase | None, managed: frozenset[str]) -> Iterator[Statement]:
    subject = f"database {database.name}"
    name = Identifier(database.name)
    default: Mapping[str, frozenset[str]] = {PUBLIC: frozenset({"CONNECT", "TEMPORARY"})}
    privileges = default if actual is None else actual.privileges
    if actual is not None and actual.owner != database.owner:
        yield Statement(
            subject, "ALTER DATABASE {name} OWNER TO {owner}", {"name": name, "owner": Identifier(database.owner)}
        )
    if surplus := sorted(privileges.get(PUBLIC, frozenset()) & {"CONNECT", "TEMPORARY"}):
        yield Statement(
            subject,
            "REVOKE {privileges} ON DATABASE {name} FROM PUBLIC",
            {"privileges": keywords(surplus), "name": name},
        )
    wanted = database.connect - {database.owner}
    having = frozenset(grantee for grantee, held in privileges.items() if "CONNECT" in held and grantee != PUBLIC)
    # Roles that are nobody's concern here keep theirs: a service may let its own roles in.
    if gone := sorted((having & managed) - wanted - {database.owner}):
        parts: dict[str, Part] = {"name": name, "roles": tuple(Identifier(role) for role in gone)}
        yield Statement(subject, "REVOKE CONNECT ON DATABASE {name} FROM {roles}", parts)
    if new := sorted(wanted - having):
        parts = {"name": name, "roles": tuple(Identifier(role) for role in new)}
        yield Statement(subject, "GRANT CONNECT ON DATABASE {name} TO {roles}", parts)
    if database.settings is not None:
        yield from _settings(subject, "DATABASE", database.name, database.settings, actual.settings if actual else {})


def _extensions(database: Database, actual: ActualDatabase | None) -> Iterator[Statement]:
    for extension in database.extensions:
        if actual is None or extension not in actual.extensions:
            subject = f"extension {extension} in database {database.name}"
            yield Statement(
                subject, "CREATE EXTENSION {name} CASCADE", {"name": Identifier(extension)}, database=database.name
            )


def _settings(
    subject: str, kind: str, name: str, wanted: Mapping[str, str], actual: Mapping[str, str]
) -> Iterator[Statement]:
    for setting in sorted(wanted):
        if actual.get(setting) != wanted[setting]:
            items = tuple(Literal(item) for item in setting_items(setting, wanted[setting]))
            # A setting's name may have dots, which here part nothing: "a.b" is one name.
            parts: dict[str, Part] = {"name": Identifier(name), "setting": Identifier(setting), "value": items}
            yield Statement(subject, f"ALTER {kind} {{name}} SET {{setting}} TO {{value}}", parts)
    for setting in sorted(set(actual) - set(wanted)):
        yield Statement(
            subject,
            f"ALTER {kind} {{name}} RESET {{setting}}",
            {"name": Identifier(name), "setting": Identifier(setting)},
        )


def _grant(grant: Grant, actual: ActualDatabase | None) -> Iterator[Statement]:
    database, role = Identifier(grant.database), Identifier(grant.role)
    if grant.schema is None:
        held = (actual.privileges if actual else {}).get(grant.role, frozenset())
        where, target, parts = f"database {grant.database}", "DATABASE {target}", {"target": database}
        connection = MAINTENANCE_DATABASE
        # CONNECT is `connect`'s business.
        held -= {"CONNECT"}
    else:
        held = (actual.schemas if actual else {}).get(grant.schema, {}).get(grant.role, frozenset())
        where, target, parts = (
            f"schema {grant.schema} in database {grant.database}",
            "SCHEMA {target}",
            {"target": Identifier(grant.schema)},
        )
        connection = grant.database
    subject = f"grants of {grant.role} on {where}"
    for verb, preposition, difference in (
        ("REVOKE", "FROM", held - grant.privileges),
        ("GRANT", "TO", grant.privileges - held),
    ):
        if difference:
            yield Statement(
                subject,
                f"{verb} {{privileges}} ON {target} {preposition} {{role}}",
                {**parts, "privileges": keywords(sorted(difference)), "role": role},
                database=connection,
            )
