"""What is brought along is checked before any host gets it."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate import provided
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.authority import Authority
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.host import CertificateError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .conftest import NOW

DOMAINS = ["api.example.com", "*.example.org"]


@pytest.fixture
def pair(ca: Authority) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    leaf = ca.sign(asked.public_bytes(serialization.Encoding.PEM).decode(), domains=DOMAINS, addresses=["192.0.2.1"])
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "certificate": leaf + ca.certificate(),
        "key": key.private_bytes(serialization.Encoding.PEM, *form).decode(),
        "ca": None,
        "domains": ["api.example.com"],
        "addresses": [],
        "now": NOW,
    }


def test_a_pair_that_fits(pair: dict[str, Any], ca: Authority) -> None:
    checked = provided.check("api", **pair)
    assert checked.chain == pair["certificate"]
    assert checked.ca == ca.certificate()
    assert checked.days_left == 397


def test_files_on_the_controller(pair: dict[str, Any], tmp_path: Path) -> None:
    for name in ("certificate", "key"):
        (tmp_path / name).write_text(pair[name])
        pair[name] = str(tmp_path / name)
    assert provided.check("api", **pair).key.startswith("-----BEGIN PRIVATE KEY")


@pytest.mark.parametrize(
    ("domains", "addresses", "missing"),
    [
        (["API.example.com", "a.example.org", "*.example.org"], ["192.0.2.1"], None),
        (["www.example.com"], [], "www.example.com"),
        (["a.b.example.org"], [], "a.b.example.org"),
        (["example.org"], [], "example.org"),
        (["*.example.com"], [], "example.com"),
        ([], ["192.0.2.2"], "192.0.2.2"),
    ],
)
def test_names(pair: dict[str, Any], domains: list[str], addresses: list[str], missing: str | None) -> None:
    pair |= {"domains": domains, "addresses": addresses}
    if missing is None:
        provided.check("api", **pair)
    else:
        with pytest.raises(CertificateError, match=f"does not cover .*{missing}"):
            provided.check("api", **pair)


@pytest.mark.parametrize(("days", "words"), [(398, "expired on 2031-02-1"), (-1, "valid only from 2030-01-15")])
def test_time(pair: dict[str, Any], days: int, words: str) -> None:
    pair["now"] = NOW + datetime.timedelta(days=days)
    with pytest.raises(CertificateError, match=words):
        provided.check("api", **pair)


@pytest.mark.parametrize(
    ("key", "digest", "words"),
    [
        (rsa.generate_private_key(65537, 1024), hashes.SHA256(), "has an RSA key of 1024 bits"),
        (ec.generate_private_key(ec.SECP224R1()), hashes.SHA256(), "has a key on the curve secp224r1"),
        (ed25519.Ed25519PrivateKey.generate(), None, "has a key that is neither ECDSA nor RSA"),
        (rsa.generate_private_key(65537, 2048), hashes.SHA256(), None),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384(), None),
    ],
    ids=["short", "curve", "kind", "rsa", "p384"],
)
def test_what_browsers_refuse_is_refused_on_the_controller(key: Any, digest: Any, words: str | None) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + datetime.timedelta(days=90))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("api.example.com")]), critical=False)
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    brought: dict[str, Any] = {
        "certificate": builder.sign(key, digest).public_bytes(serialization.Encoding.PEM).decode(),
        "key": key.private_bytes(serialization.Encoding.PEM, *form).decode(),
    }
    rest: dict[str, Any] = {"ca": None, "domains": ["api.example.com"], "addresses": [], "now": NOW}
    if words is None:
        assert provided.check("api", **brought, **rest).chain == brought["certificate"]
    else:
        with pytest.raises(CertificateError, match=f"provided certificate api {words}, which browsers refuse"):
            provided.check("api", **brought, **rest)


def test_a_signature_by_sha_1_is_refused(tmp_path: Path) -> None:
    # cryptography itself makes none any more.
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha1", "-subj", "/CN=api"]
    files = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    command += ["-out", files["certificate"], "-keyout", files["key"]]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(CertificateError, match="is signed with SHA1, which browsers refuse"):
        provided.check("api", **files, ca=None, domains=[], addresses=[], now=NOW)


def test_another_key(pair: dict[str, Any]) -> None:
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, *form).decode()
    with pytest.raises(CertificateError, match="does not belong") as caught:
        provided.check("api", **(pair | {"key": key}))
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"}, "not a PEM private key"),
        ({"key": "/no/such/file"}, "cannot be read on the controller"),
        ({"certificate": "-----BEGIN nonsense"}, "holds no PEM certificate"),
    ],
)
def test_nonsense(pair: dict[str, Any], changes: dict[str, str], words: str) -> None:
    with pytest.raises(CertificateError, match=words) as caught:
        provided.check("api", **(pair | changes))
    assert "c2VjcmV0" not in str(caught.value)


def test_a_broken_chain(pair: dict[str, Any], tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger", passphrase=None, now=NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    stranger.sign(asked.public_bytes(serialization.Encoding.PEM).decode(), domains=["x.example.com"], addresses=[])
    leaf = pair["certificate"].partition("-----END CERTIFICATE-----\n")
    pair["certificate"] = leaf[0] + leaf[1] + stranger.certificate()
    with pytest.raises(CertificateError, match="chain is broken"):
        provided.check("api", **pair)
