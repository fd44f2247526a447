"""Who issues a certificate, and what a public authority asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.fleet.plugins.filter.provided import with_provided
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.certificates import SERVERS

from .fixtures import fluxbase, one_host, plan, three_tiers

OWN = "https://acme.example.net/dir"


def problems(inventory: Any) -> dict[str, str]:
    return {finding.variable: finding.problem for finding in plan(inventory).findings.items}


def acme(**changes: Any) -> Any:
    service = changes.pop("service", {})
    return one_host(
        fleet_services={"fluxbase": fluxbase(**{"aliases": ["www.example.com"], **service})},
        fleet_certificates={"mode": "acme", **changes},
    )


def test_a_public_authority() -> None:
    web1 = plan(acme(email="hostmaster@example.com")).hosts["web1"]
    assert web1["roles"][-2:] == ["edge", "acme"]
    assert "certbot" in web1["packages"]
    directory = "/etc/selfhost/tls/api.example.com"
    assert web1["acme"] == {
        "server": SERVERS["production"],
        "email": "hostmaster@example.com",
        "ca_file": "",
        "certificates": [
            {"name": "api.example.com", "domains": ["api.example.com", "www.example.com"], "directory": directory}
        ],
    }
    assert [entry["mode"] for entry in web1["certificates"]] == ["acme", "local_ca"]
    site = web1["edge"]["sites"][0]
    assert (site["acme"], site["stapling"]) == (True, False)


def test_no_certbot_where_nobody_asks_for_it() -> None:
    web1 = plan(one_host()).hosts["web1"]
    assert web1["acme"] is None
    assert "acme" not in web1["roles"]
    assert "certbot" not in web1["packages"]


def test_a_service_has_its_own_wish() -> None:
    one = plan(one_host(fleet_services={"fluxbase": fluxbase(certificate={"mode": "acme"})})).hosts["web1"]
    assert one["acme"]["server"] == SERVERS["production"]
    assert plan(acme(service={"certificate": {"mode": "local_ca"}})).hosts["web1"]["acme"] is None


@pytest.mark.parametrize(("given", "server"), [("staging", SERVERS["staging"]), (OWN, OWN)])
def test_another_authority(given: str, server: str) -> None:
    web1 = plan(acme(server=given)).hosts["web1"]
    assert web1["acme"]["server"] == server
    # Only another authority than Let's Encrypt may have OCSP.
    assert web1["edge"]["sites"][0]["stapling"] is (given == OWN)


def test_a_provided_certificate_may_have_ocsp() -> None:
    pair = {"mode": "provided", "certificate": "/c.pem", "key": "/k.pem"}
    web1 = plan(one_host(fleet_services={"fluxbase": fluxbase(certificate=pair)})).hosts["web1"]
    assert web1["edge"]["sites"][0]["stapling"] is True


PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ9x\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("rotate", [None, "fluxbase.FLUXBASE_AUTH_JWT_SECRET"])
def test_no_provided_key_is_in_the_plan(rotate: str | None) -> None:
    pair = {"mode": "provided", "certificate": "-----BEGIN CERTIFICATE-----\nMIIB", "key": PEM}
    services = {"fluxbase": fluxbase(certificate=pair)}
    made = plan(one_host(fleet_services=services), rotate=rotate)
    text = json.dumps(made.as_fact())
    assert made.hosts and "BEGIN" not in text and "MC4CAQAwBQYDK2VwBCIEIJ9x" not in text and "MIIB" not in text
    found = made.hosts["web1"]["certificates"]
    assert found[0]["provided"]["key"] == {"service": "fluxbase", "name": "key"}
    # The role puts it in where the module wants it.
    site, internal = with_provided(found, services)
    assert site == {**found[0], "provided": {"certificate": pair["certificate"], "key": PEM}}
    assert internal == found[1]


def test_what_is_provided_may_be_given_by_hand_too() -> None:
    entry = {"name": "x", "provided": {"certificate": "/c.pem", "key": "/k.pem"}}
    assert with_provided([entry], {}) == [entry]
    with pytest.raises(AnsibleFilterError, match=r"fleet_services\.a\.certificate\.key is missing"):
        with_provided([{"name": "x", "provided": {"key": {"service": "a", "name": "key"}}}], {"a": {}})


def test_nothing_is_provided() -> None:
    found = problems(one_host(fleet_certificates={"mode": "provided"}))
    assert set(found) == {f"fleet_services.fluxbase.certificate.{part}" for part in ("certificate", "key")}


def test_a_name_that_nobody_can_own() -> None:
    unowned = {"domain": "api.fleet.internal"}
    assert "no public authority" in problems(acme(service=unowned))["fleet_services.fluxbase.domain"]
    assert problems(acme(service=unowned, server=OWN)) == {}


def test_one_edge_knows_the_answer() -> None:
    found = problems(three_tiers(fleet_certificates={"mode": "acme"}))
    assert "one edge, and there are 2: edge1, edge2" in found["fleet_certificates.mode"]


def test_the_authoritys_own_certificate(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    assert "is no file" in problems(acme(server=OWN, ca_file=str(path)))["fleet_certificates.ca_file"]
    path.write_text("-----BEGIN CERTIFICATE-----")
    assert problems(acme(server=OWN, ca_file=str(path))) == {}


@pytest.mark.parametrize(
    ("key", "value"), [("server", "http://acme.example.net"), ("email", "hostmaster"), ("mode", "letsencrypt")]
)
def test_what_the_schema_refuses(key: str, value: str) -> None:
    assert f"fleet_certificates.{key}" in problems(acme(**{key: value}))
