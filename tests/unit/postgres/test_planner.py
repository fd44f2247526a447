"""The difference between two clusters, as data."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.desired import parse, setting_items, setting_text
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import (
    EMPTY,
    ActualDatabase,
    ActualRole,
    Cluster,
    ClusterError,
    Database,
    Desired,
    Grant,
    Role,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.planner import plan
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.scram import make_verifier
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.statement import (
    Identifier,
    Keyword,
    Secret,
    Statement,
    StatementError,
    keywords,
)

VERIFIER = str(make_verifier("pencil", "app"))
APP = Role("app", attributes=frozenset({"LOGIN", "INHERIT", "CREATEROLE"}), verifier=VERIFIER)
SHOP = Database("shop", owner="app", extensions=("pg_trgm",))
ACTUAL_APP = ActualRole(attributes=APP.attributes, verifier=VERIFIER)
ACTUAL_SHOP = ActualDatabase(owner="app", encoding="UTF8", locale="C.UTF-8", extensions={"pg_trgm": "1.6"})
SUPERUSER = ActualRole(attributes=frozenset({"SUPERUSER", "LOGIN", "INHERIT"}))
CLUSTER = Cluster(
    version=17,
    roles={"postgres": SUPERUSER, "app": ACTUAL_APP},
    databases={"shop": ACTUAL_SHOP},
    available_extensions=frozenset({"pg_trgm", "pgcrypto"}),
)
DESIRED = Desired(roles=(APP,), databases=(SHOP,))


def texts(cluster: Cluster, desired: Desired) -> list[str]:
    return [statement.text() for statement in plan(cluster, desired)]


def with_role(**changes: object) -> Cluster:
    return replace(CLUSTER, roles={**CLUSTER.roles, "app": replace(ACTUAL_APP, **changes)})


def with_database(**changes: object) -> Cluster:
    return replace(CLUSTER, databases={"shop": replace(ACTUAL_SHOP, **changes)})


def test_what_is_as_it_shall_be_needs_nothing() -> None:
    assert plan(CLUSTER, DESIRED) == []


def test_an_empty_cluster_gets_everything_in_order() -> None:
    statements = plan(EMPTY, DESIRED)
    assert [statement.text().split("(")[0] for statement in statements] == [
        "CREATE ROLE app NOSUPERUSER NOCREATEDB CREATEROLE INHERIT LOGIN NOREPLICATION NOBYPASSRLS PASSWORD '********'",
        "CREATE DATABASE shop OWNER app TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'",
        "REVOKE CONNECT, TEMPORARY ON DATABASE shop FROM PUBLIC",
        "CREATE EXTENSION pg_trgm CASCADE",
    ]
    assert [statement.database for statement in statements] == ["postgres", "postgres", "postgres", "shop"]
    assert [statement.transactional for statement in statements] == [True, False, True, True]


def test_attributes_are_exact_and_only_the_difference_is_said() -> None:
    cluster = with_role(attributes=frozenset({"LOGIN", "INHERIT", "SUPERUSER"}))
    assert plan(cluster, DESIRED) == [
        Statement(
            "role app",
            "ALTER ROLE {name} {attributes}",
            {"name": Identifier("app"), "attributes": (Keyword.NOSUPERUSER, Keyword.CREATEROLE)},
        )
    ]


def test_another_verifier_is_set_and_never_shown() -> None:
    [statement] = plan(with_role(verifier="md5..."), DESIRED)
    assert statement.parts["password"] == Secret(VERIFIER)
    assert statement.text() == "ALTER ROLE app PASSWORD '********'"
    assert VERIFIER not in repr(statement)
    assert VERIFIER not in repr(APP)
    assert VERIFIER not in repr(ACTUAL_APP)


def test_no_verifier_leaves_the_password() -> None:
    assert plan(CLUSTER, replace(DESIRED, roles=(replace(APP, verifier=None),))) == []


def test_the_connection_limit_is_exact() -> None:
    assert texts(with_role(connection_limit=5), DESIRED) == ["ALTER ROLE app CONNECTION LIMIT -1"]


def test_settings_are_exact_where_they_are_given() -> None:
    role = replace(APP, settings={"search_path": '"$user", public', "work_mem": "4MB"})
    cluster = with_role(settings={"work_mem": "8MB", "lock_timeout": "1s"})
    assert texts(cluster, replace(DESIRED, roles=(role,))) == [
        "ALTER ROLE app SET search_path TO '$user', 'public'",
        "ALTER ROLE app SET work_mem TO '4MB'",
        "ALTER ROLE app RESET lock_timeout",
    ]
    assert texts(cluster, DESIRED) == []


def test_memberships_are_added_and_others_left() -> None:
    role = replace(APP, member_of=frozenset({"postgres"}))
    assert texts(with_role(member_of=frozenset({"other"})), replace(DESIRED, roles=(role,))) == [
        "GRANT postgres TO app"
    ]


def test_public_loses_what_it_has_by_default() -> None:
    cluster = with_database(privileges={"": frozenset({"CONNECT", "TEMPORARY"})})
    assert texts(cluster, DESIRED) == ["REVOKE CONNECT, TEMPORARY ON DATABASE shop FROM PUBLIC"]


def test_connect_is_taken_from_managed_roles_only() -> None:
    report = Role("report")
    cluster = replace(
        with_database(privileges={"report": frozenset({"CONNECT"}), "anon": frozenset({"CONNECT"})}),
        roles={**CLUSTER.roles, "report": ActualRole(attributes=report.attributes)},
    )
    assert texts(cluster, replace(DESIRED, roles=(APP, report))) == ["REVOKE CONNECT ON DATABASE shop FROM report"]
    wanted = replace(SHOP, connect=frozenset({"report", "app"}))
    assert texts(cluster, replace(DESIRED, roles=(APP, report), databases=(wanted,))) == []


def test_a_new_owner() -> None:
    assert texts(with_database(owner="postgres"), DESIRED) == ["ALTER DATABASE shop OWNER TO app"]


def test_only_missing_extensions_are_made() -> None:
    database = replace(SHOP, extensions=("pg_trgm", "pgcrypto"))
    assert texts(CLUSTER, replace(DESIRED, databases=(database,))) == ["CREATE EXTENSION pgcrypto CASCADE"]


def test_grants_are_exact_for_the_role_and_object_named() -> None:
    cluster = with_database(schemas={"public": {"app": frozenset({"USAGE", "CREATE"})}})
    grants = (
        Grant("shop", "app", frozenset({"USAGE"}), schema="public"),
        Grant("shop", "postgres", frozenset({"TEMPORARY"})),
    )
    assert texts(cluster, replace(DESIRED, grants=grants)) == [
        "REVOKE CREATE ON SCHEMA public FROM app",
        "GRANT TEMPORARY ON DATABASE shop TO postgres",
    ]


def test_nothing_is_dropped_by_omission_and_what_is_absent_goes_in_order() -> None:
    assert plan(CLUSTER, Desired()) == []
    gone = Desired(roles=(Role("app", present=False),), databases=(Database("shop", present=False),))
    assert texts(CLUSTER, gone) == ["DROP DATABASE shop", "DROP ROLE app"]
    assert plan(EMPTY, gone) == []


@pytest.mark.parametrize(
    ("cluster", "desired", "expected"),
    [
        (CLUSTER, Desired(databases=(replace(SHOP, owner="nobody"),)), "database shop: there is no role nobody"),
        (CLUSTER, Desired(databases=(replace(SHOP, extensions=("vector",)),)), "postgresql-17-pgvector"),
        (with_database(encoding="SQL_ASCII"), DESIRED, "encoding SQL_ASCII, not UTF8"),
        (CLUSTER, Desired(databases=(replace(SHOP, locale="en_US.UTF-8"),)), "locale C.UTF-8, not en_US.UTF-8"),
        (CLUSTER, Desired(grants=(Grant("nowhere", "app", frozenset()),)), "there is no database nowhere"),
        (CLUSTER, Desired(roles=(replace(APP, member_of=frozenset({"team"})),)), "there is no role team"),
    ],
)
def test_what_cannot_be_had_is_named(cluster: Cluster, desired: Desired, expected: str) -> None:
    with pytest.raises(ClusterError, match=expected.replace(".", r"\.")):
        plan(cluster, desired)


def test_all_that_cannot_be_had_is_said_at_once() -> None:
    desired = Desired(databases=(replace(SHOP, owner="nobody", extensions=("vector", "postgis")),))
    with pytest.raises(ClusterError) as raised:
        plan(CLUSTER, desired)
    assert len(str(raised.value).splitlines()) == 3


def test_debian_12_has_no_pgvector_and_the_failure_says_so() -> None:
    with pytest.raises(ClusterError, match="Debian 12 has none"):
        plan(replace(CLUSTER, version=15), Desired(databases=(replace(SHOP, extensions=("vector",)),)))


def test_names_are_shown_quoted_where_sql_wants_it() -> None:
    assert texts(EMPTY, Desired(roles=(Role('we"ird'),)))[0].startswith('CREATE ROLE "we""ird" ')


def test_no_keyword_comes_from_an_option() -> None:
    with pytest.raises(StatementError):
        keywords(["LOGIN; DROP TABLE x"])


# --- options


def options(**changes: object) -> dict[str, object]:
    return {"roles": [], "databases": [], "grants": [], "settings": {}, **changes}


def test_all_mistakes_in_options_are_said_at_once() -> None:
    with pytest.raises(ClusterError) as raised:
        parse(
            **options(
                roles=[
                    {"name": "a", "attributes": ["FLY"]},
                    {"name": "a"},
                    {"name": "b", "password_verifier": "clear text"},
                ],
                databases=[{"name": "x" * 64}],
                grants=[{"database": "d", "role": "a", "privileges": ["ALL"]}],
            )  # type: ignore[arg-type]
        )
    said = str(raised.value)
    assert len(said.splitlines()) == 5
    assert "clear text" not in said


def test_inherit_is_on_unless_refused() -> None:
    desired = parse(**options(roles=[{"name": "a"}, {"name": "b", "attributes": ["NOINHERIT", "login"]}]))  # type: ignore[arg-type]
    assert [role.attributes for role in desired.roles] == [frozenset({"INHERIT"}), frozenset({"LOGIN"})]


@pytest.mark.parametrize(
    ("name", "value", "text", "items"),
    [
        ("jit", False, "off", ("off",)),
        ("work_mem", "4MB", "4MB", ("4MB",)),
        ("statement_timeout", 500, "500", ("500",)),
        ("search_path", ["$user", "public", "a,b"], '"$user", public, "a,b"', ("$user", "public", "a,b")),
        ("search_path", "", "", ("",)),
        ("datestyle", ["ISO", "DMY"], "ISO, DMY", ("ISO, DMY",)),
    ],
)
def test_settings_are_written_as_postgresql_keeps_them(
    name: str, value: object, text: str, items: tuple[str, ...]
) -> None:
    assert setting_text(name, value) == text
    assert setting_items(name, text) == items
