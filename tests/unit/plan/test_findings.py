"""Everything that is refused: what is wrong, with which variable, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Finding

from .fixtures import SECRETS, SEVERAL_HOSTS, fluxbase, one_host, plan, three_tiers


def findings(inventory: Any, *folders: Path) -> dict[str, str]:
    return {
        finding.variable: f"{finding.problem} | {finding.remedy}"
        for finding in plan(inventory, *folders).findings.items
    }


def with_secret(**changes: Any) -> Any:
    kept = {key: value for key, value in {**SECRETS, **changes}.items() if value is not None}
    return one_host(fleet_services={"fluxbase": fluxbase(secrets=kept)})


def test_an_unknown_service() -> None:
    found = findings(one_host(fleet_services={"fluxbasse": fluxbase()}))
    assert "Known are: fluxbase" in found["fleet_services.fluxbasse"]


@pytest.mark.parametrize(
    ("variables", "variable"),
    [
        ({"fleet_services": {"fluxbase": fluxbase(domian="x.example.com")}}, "fleet_services.fluxbase.domian"),
        ({"fleet_postgres": {"max_conections": 100}}, "fleet_postgres.max_conections"),
        ({"fleet_sevices": {}}, "fleet_sevices"),
    ],
)
def test_an_unknown_key(variables: dict[str, Any], variable: str) -> None:
    assert "is no known key | Known are: " in findings(one_host(**variables))[variable]


@pytest.mark.parametrize(
    "domain",
    [
        "https://api.example.com",
        "API.example.com",
        "localhost",
        "a b.example.com",
        "-a.example.com",
        "api.example.com/x",
    ],
)
def test_a_malformed_domain(domain: str) -> None:
    assert (
        "is no domain name"
        in findings(one_host(fleet_services={"fluxbase": fluxbase(domain=domain)}))["fleet_services.fluxbase.domain"]
    )


def test_a_missing_domain() -> None:
    assert (
        "is missing"
        in findings(one_host(fleet_services={"fluxbase": fluxbase(domain=None)}))["fleet_services.fluxbase.domain"]
    )


def test_a_version_without_contract() -> None:
    found = findings(one_host(fleet_services={"fluxbase": fluxbase(version="2031.1.0")}))
    assert "no contract of fluxbase covers 2031.1.0" in found["fleet_services.fluxbase.version"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FLUXBASE_AUTH_JWT_SECRET", None, "is missing"),
        ("FLUXBASE_AUTH_JWT_SECRET", "kT9x", "is 4 bytes long and must have at least 32"),
        (
            "FLUXBASE_AUTH_JWT_SECRET",
            "0123456789abcdef" * 4,
            "4.0 bits of entropy per character and must have at least 4.5",
        ),
        ("FLUXBASE_AUTH_JWT_SECRET", "your-secret-key-change-in-production", "placeholder"),
        ("FLUXBASE_ENCRYPTION_KEY", "your-32-character-encryption-key", "placeholder"),
        ("FLUXBASE_ENCRYPTION_KEY", "Zk3mT8qLw5RxB2nVcY7sJp4HfGdA9eUoX", "is 33 bytes long and must be exactly 32"),
        ("FLUXBASE_DATABASE_PASSWORD", "p@ss/w:rd&b7f3e91c5a2d84f06e", "has characters outside"),
        ("FLUXBASE_DATABASE_PASSWORD", "changeme", "placeholder"),
        ("FLUXBASE_DATABASE_PASSWORD", "", "is empty"),
    ],
)
def test_a_bad_secret(name: str, value: str | None, words: str) -> None:
    found = findings(with_secret(**{name: value}))
    text = found[f"fleet_services.fluxbase.secrets.{name}"]
    assert words in text and "Make one with: openssl" in text
    assert not value or value not in str(found)


def test_an_unknown_secret() -> None:
    assert (
        "is no secret of"
        in findings(with_secret(FLUXBASE_NOSUCH="x" * 40))["fleet_services.fluxbase.secrets.FLUXBASE_NOSUCH"]
    )


def test_two_users_of_one_port() -> None:
    found = findings(one_host(fleet_services={"fluxbase": fluxbase(ports={"server": {"http": {"blue": 443}}})}))
    text = (
        found["fleet_services.fluxbase.ports.server.http.blue"]
        if "fleet_services.fluxbase.ports.server.http.blue" in found
        else str(found)
    )
    assert "port 443 of web1 has two users" in text


def test_more_connections_than_the_database_has() -> None:
    found = findings(three_tiers(fleet_postgres={"max_connections": 100}))
    assert "Set it to at least 139" in found["fleet_postgres.max_connections"]


@pytest.mark.parametrize("group", ["edge", "postgres"])
def test_an_empty_group(group: str) -> None:
    assert f"groups.{group}" in findings(one_host(groups={group: []}))


def test_an_empty_group_of_a_service() -> None:
    assert (
        "the group nobody has no hosts"
        in findings(one_host(fleet_services={"fluxbase": fluxbase(hosts="nobody")}))["fleet_services.fluxbase.hosts"]
    )


def test_an_extension_without_package() -> None:
    found = findings(one_host(os="debian-12"))
    assert "needs the extension vector, and Debian 12 (web1) has no package" in found["fleet_services.fluxbase.version"]
    assert "Debian 13" in found["fleet_services.fluxbase.version"]


def test_an_unsupported_system() -> None:
    assert "plan9 is not supported" in findings(one_host(os="plan9"))["hosts.web1.fleet_os"]


def test_a_missing_checksum_and_companion() -> None:
    found = findings(one_host(fleet_services={"fluxbase": fluxbase(release=None, settings=None)}))
    assert "is missing" in found["fleet_services.fluxbase.release.checksum"]
    assert 'settings.FLUXBASE_JOBS_ENABLED: "false"' in found["fleet_services.fluxbase.companions.deno"]


def test_a_broken_definition_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(
        "name: mine\ndescription: x\ncomponents: {}\ncontracts: [{versions: nonsense}]\n"
    )
    found = findings(one_host(fleet_services={"mine": {"version": "1", "hosts": "app"}}), tmp_path)
    assert "nonsense is no range" in found["services/mine.yml.contracts.0.versions"]


def test_all_at_once() -> None:
    bad = fluxbase(version="2031.1", domain="nope", colour="red", secrets={})
    found = findings(
        one_host(os="debian-12", groups={"edge": []}, fleet_services={"fluxbase": bad, "nosuch": {"version": "1"}})
    )
    assert {"fleet_services.fluxbase.version", "fleet_services.fluxbase.colour", "fleet_services.nosuch"} <= set(found)


def test_an_undefined_variable_is_not_reported_twice() -> None:
    undefined = Finding(
        "fleet_services.fluxbase.release.checksum", "cannot be filled in: 'vault_checksum' is undefined", "Define it"
    )
    found = plan(one_host(fleet_services={"fluxbase": fluxbase(release=None)}), undefined=[undefined]).findings.items
    assert [finding.variable for finding in found] == ["fleet_services.fluxbase.release.checksum"]


def test_an_egress_that_is_no_address() -> None:
    found = findings(
        one_host(fleet_services={"fluxbase": fluxbase(egress=["any", "203.0.113.0/24", "nonsense", "203.0.113.1/24"])})
    )
    assert set(found) == {"fleet_services.fluxbase.egress.2", "fleet_services.fluxbase.egress.3"}


def test_a_definition_whose_database_has_no_password(tmp_path: Path) -> None:
    text = "name: mine\ndescription: x\ncomponents: {}\ndatabase: {connections: 1}\ncontracts: [{versions: '>=1'}]\n"
    (tmp_path / "mine.yml").write_text(text)
    found = findings(one_host(fleet_services={"mine": {"version": "1", "hosts": "app"}}), tmp_path)
    assert "password of its database role" in found["services/mine.yml.secrets.MINE_DATABASE_PASSWORD"]


@pytest.mark.parametrize(
    ("addresses", "host", "words"),
    [
        ({"app1": "app1.example.com"}, "app1", "app1.example.com is a name and no IP address"),
        ({"app2": "192.0.2.13"}, "app2", "192.0.2.13 is the address of app1 already"),
        ({"db1": "127.0.0.1"}, "db1", "127.0.0.1 is no address to reach a host at"),
        (
            {"edge2": "2001:db8::1"},
            "edge2",
            "is of another kind of IP than 192.0.2.13 of app1, which edge2 has to reach",
        ),
    ],
    ids=["name", "taken", "loopback", "kind"],
)
def test_hosts_that_cannot_reach_each_other(addresses: dict[str, str], host: str, words: str) -> None:
    found = findings(three_tiers(own_addresses=addresses))
    assert list(found) == [f"hosts.{host}.fleet_address"]
    assert words in found[f"hosts.{host}.fleet_address"]


def test_hosts_that_nobody_has_to_reach_may_have_names() -> None:
    assert findings(three_tiers(own_addresses={"db2": "db2.example.com", "db3": "db2.example.com"})) == {}


def test_defaults_that_suit_one_host_only() -> None:
    found = findings(three_tiers(fleet_services={"fluxbase": fluxbase()}))
    assert set(found) == {f"fleet_services.fluxbase.settings.{name}" for name in SEVERAL_HOSTS}
    text = found["fleet_services.fluxbase.settings.FLUXBASE_STORAGE_PROVIDER"]
    assert "fluxbase runs on 3 hosts: by default a file lies on the host that took it" in text
    assert 'Set it to "s3"' in text
