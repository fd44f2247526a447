"""The verifiers, against one that PostgreSQL 17 made, and the rules for passwords."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.fleet.plugins.filter.scram import FilterModule
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.scram import (
    ScramError,
    make_verifier,
    parse_verifier,
)

FROM_POSTGRESQL = (
    "SCRAM-SHA-256$4096:"
    "YDIQlE9xQ/EsDIopVhF1xw==$+O85JylYSwGCyqkTz7zOHvbB70NXVWnZjJWDsECkU6A=:Hr78orY20++EG611G3HnneU6rSxSUwW6kceagRiDpmQ="
)


def test_a_verifier_of_postgresql_itself_accepts_its_password() -> None:
    verifier = parse_verifier(FROM_POSTGRESQL)
    assert verifier.accepts("sEcret-pass_1")
    assert not verifier.accepts("sEcret-pass_2")
    assert str(verifier) == FROM_POSTGRESQL


def test_the_same_arguments_give_the_same_verifier() -> None:
    assert str(make_verifier("pencil", "user")) == str(make_verifier("pencil", "user"))
    assert make_verifier("pencil", "user").accepts("pencil")


def test_another_role_or_namespace_has_another_salt() -> None:
    salts = {
        make_verifier("pencil", "a").salt,
        make_verifier("pencil", "b").salt,
        make_verifier("pencil", "a", namespace="x").salt,
    }
    assert len(salts) == 3


def test_the_salt_says_nothing_about_the_password() -> None:
    """A server gives the salt to anybody: made from the password, it would be a hash to test guesses against."""
    assert make_verifier("pencil", "a").salt == make_verifier("another", "a").salt
    assert make_verifier("pencil", "a").stored_key != make_verifier("another", "a").stored_key


@pytest.mark.parametrize("password", ["", "pässword", "tab\there", "soft\u00adhyphen", "\u2168"])
def test_passwords_that_drivers_disagree_on_are_refused_without_being_shown(password: str) -> None:
    with pytest.raises(ScramError) as raised:
        make_verifier(password, "user")
    assert "user" in str(raised.value)
    assert not password or password not in str(raised.value)


@pytest.mark.parametrize("text", ["", "md5abc", "SCRAM-SHA-256$4096:c2FsdA==$c2hvcnQ=:c2hvcnQ=", "pencil"])
def test_what_is_no_verifier_is_refused(text: str) -> None:
    with pytest.raises(ScramError):
        parse_verifier(text)


def test_the_filter_reports_as_a_filter_does() -> None:
    made = FilterModule().filters()["scram_verifier"]("pencil", "user")
    assert parse_verifier(made).accepts("pencil")
    with pytest.raises(AnsibleFilterError, match="ASCII"):
        FilterModule().filters()["scram_verifier"]("pässword", "user")
    with pytest.raises(AnsibleFilterError, match="strings"):
        FilterModule().filters()["scram_verifier"](None, "user")


SERVICES = {"shop": {"domain": "shop.example.com", "secrets": {"PASSWORD": "pencil"}}}
REFERENCE = {"service": "shop", "name": "PASSWORD"}


def test_a_database_and_its_pooler_hold_the_same_verifier() -> None:
    with_verifiers = FilterModule().filters()["with_verifiers"]
    [role] = with_verifiers([{"name": "shop", "attributes": ["LOGIN"], "secret": REFERENCE}], SERVICES)
    [pool] = with_verifiers([{"name": "pool", "user": "shop", "secret": REFERENCE}], SERVICES, "user")
    assert role.keys() == {"name", "attributes", "password_verifier"}
    assert role["password_verifier"] == pool["password_verifier"]
    assert parse_verifier(role["password_verifier"]).accepts("pencil")


def test_the_same_role_and_password_in_another_fleet_have_another_verifier() -> None:
    with_verifiers = FilterModule().filters()["with_verifiers"]
    entry = {"name": "shop", "secret": REFERENCE}
    other = {"shop": {**SERVICES["shop"], "domain": "shop.example.org"}}
    assert with_verifiers([entry], SERVICES) != with_verifiers([entry], other)


def test_an_entry_without_a_secret_stays_as_it_is() -> None:
    assert FilterModule().filters()["with_verifiers"]([{"name": "readers"}], {}) == [{"name": "readers"}]


def test_a_missing_secret_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match=r"fleet_services\.shop\.secrets\.PASSWORD is missing; the role shop"):
        FilterModule().filters()["with_verifiers"]([{"name": "shop", "secret": REFERENCE}], {"shop": {}})
