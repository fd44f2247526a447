"""The fleet's authority, and what it signs."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.authority import Authority
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.host import CertificateError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from .conftest import NOW


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, name: str = "evil.example.net") -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def signed(ca: Authority, *domains: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca.sign(request(), domains=domains, addresses=["192.0.2.1"]).encode())


def test_looking_creates_nothing(ca: Authority, tmp_path: Path) -> None:
    assert ca.certificate() == ""
    assert list(tmp_path.iterdir()) == []


def test_it_is_made_once(ca: Authority, tmp_path: Path) -> None:
    signed(ca, "a.example.com")
    first = ca.certificate()
    signed(ca, "b.example.com")
    assert ca.certificate() == first
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600


def test_the_certificate(ca: Authority) -> None:
    leaf = signed(ca, "a.example.com")
    authority = x509.load_pem_x509_certificate(ca.certificate().encode())
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    # The plan's names, not those of the request.
    assert [str(name.value) for name in names] == ["a.example.com", "192.0.2.1"]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert (leaf.not_valid_after_utc - NOW).days == 397
    assert leaf.not_valid_before_utc < NOW
    assert (authority.not_valid_after_utc - NOW).days == 3650


def test_a_passphrase(tmp_path: Path) -> None:
    ca = Authority(tmp_path, passphrase="correct horse", now=NOW)
    signed(ca, "a.example.com")
    assert "ENCRYPTED" in (tmp_path / "ca.key").read_text()
    signed(ca, "b.example.com")
    for wrong in ("battery staple", None):
        with pytest.raises(CertificateError, match="passphrase"):
            signed(Authority(tmp_path, passphrase=wrong, now=NOW), "c.example.com")


def test_no_certificate_outlives_the_authority(tmp_path: Path) -> None:
    signed(Authority(tmp_path, passphrase=None, now=NOW), "a.example.com")
    late = Authority(tmp_path, passphrase=None, now=NOW + datetime.timedelta(days=3500))
    assert (signed(late, "a.example.com").not_valid_after_utc - NOW).days == 3650
    too_late = Authority(tmp_path, passphrase=None, now=NOW + datetime.timedelta(days=3630))
    with pytest.raises(CertificateError, match="ends in 20 days"):
        signed(too_late, "a.example.com")


def test_a_lost_or_foreign_key_is_never_replaced_silently(ca: Authority, tmp_path: Path) -> None:
    signed(ca, "a.example.com")
    key = tmp_path / "ca" / "ca.key"
    key.unlink()
    with pytest.raises(CertificateError, match="missing"):
        signed(ca, "a.example.com")
    other = Authority(tmp_path / "other", passphrase=None, now=NOW)
    signed(other, "a.example.com")
    key.write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match="not the key of"):
        signed(ca, "a.example.com")


def test_refused_requests(ca: Authority) -> None:
    with pytest.raises(CertificateError, match="ECDSA"):
        ca.sign(request(rsa.generate_private_key(65537, 2048)), domains=["a.example.com"], addresses=[])
    with pytest.raises(CertificateError, match="at least one"):
        ca.sign(request(), domains=[], addresses=[])


def test_hosts_at_the_same_time_get_one_authority(tmp_path: Path) -> None:
    """As Ansible's forks do at the first run of a fleet."""
    code = (
        "import sys, datetime, pathlib\n"
        "from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.authority import Authority\n"
        "now = datetime.datetime.now(datetime.UTC)\n"
        "ca = Authority(pathlib.Path(sys.argv[1]), passphrase=None, now=now)\n"
        "ca.sign(sys.stdin.read(), domains=['a.example.com'], addresses=[])\n"
        "print(ca.certificate())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "ca")]
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    running = []
    for _process in range(6):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdin is not None
        process.stdin.write(request())
        process.stdin.close()
        running.append(process)
    answers = []
    for process in running:
        assert process.stdout is not None
        answers.append(process.stdout.read())
        assert process.wait() == 0
    assert len(set(answers)) == 1
    serials = {json.loads(line)["serial"] for line in (tmp_path / "ca" / "issued.jsonl").read_text().splitlines()}
    assert len(serials) == 6
