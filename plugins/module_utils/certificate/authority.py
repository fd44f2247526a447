# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet's own certificate authority: a folder on the controller with its key and a list of what it issued."""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .host import CertificateError

# ansible-core brings it to every controller. Ansible's import test takes this for a host, which has none.
with suppress(ModuleNotFoundError):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
LEAF_DAYS = 397
# A certificate from an authority that is about to expire would be replaced within days.
LEAST_LEFT_DAYS = 30
SKEW = datetime.timedelta(hours=1)  # a host's clock may be behind the controller's


class Authority:
    """Creates itself at first use; hosts that are served at the same time wait for each other."""

    def __init__(self, folder: Path, *, passphrase: str | None, now: datetime.datetime) -> None:
        self._folder = folder
        self._passphrase = passphrase.encode() if passphrase else None
        self._now = now

    def certificate(self) -> str:
        """The authority's certificate, or nothing where it does not exist yet."""
        path = self._folder / "ca.pem"
        return path.read_text() if path.exists() else ""

    def sign(self, request: str, *, domains: Iterable[str], addresses: Iterable[str]) -> str:
        """A certificate for the request's key and the plan's names; the names in the request count for nothing."""
        with self._locked():
            key, certificate = self._load_or_create()
            leaf = self._leaf(x509.load_pem_x509_csr(request.encode()), domains, addresses, key, certificate)
            self._note(leaf)
        return leaf.public_bytes(serialization.Encoding.PEM).decode()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _load_or_create(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        path = self._folder / "ca.key"
        if not path.exists() and not self.certificate():
            self._create(path)
        if not path.exists():
            raise CertificateError(
                f"{path} is missing beside its ca.pem: restore it, or remove ca.pem to start a new authority"
            )
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), self._passphrase)
        except (ValueError, TypeError) as error:
            raise CertificateError(f"{path} cannot be read: {error}; check certificate_ca_passphrase") from error
        certificate = x509.load_pem_x509_certificate(self.certificate().encode())
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CertificateError(f"{path} is not the key of {self._folder / 'ca.pem'}")
        left = certificate.not_valid_after_utc - self._now
        if left.days < LEAST_LEFT_DAYS:
            raise CertificateError(
                f"the authority in {self._folder} ends in {left.days} days: move it away to start a new one"
            )
        return key, certificate

    def _create(self, path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"selfhost.fleet authority {serial:x}"[:64])])
        certificate = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
            .serial_number(serial)
            .not_valid_before(self._now - SKEW)
            .not_valid_after(self._now + datetime.timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if self._passphrase:
            encryption = serialization.BestAvailableEncryption(self._passphrase)
        text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        _write(path, text, mode=0o600)
        # Last: the certificate is what says that the authority exists.
        _write(self._folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)

    def _leaf(
        self,
        request: x509.CertificateSigningRequest,
        domains: Iterable[str],
        addresses: Iterable[str],
        key: ec.EllipticCurvePrivateKey,
        authority: x509.Certificate,
    ) -> x509.Certificate:
        public_key = request.public_key()
        if not request.is_signature_valid or not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise CertificateError("the host's signing request is not signed by an ECDSA key of its own")
        names: list[x509.GeneralName] = [x509.DNSName(domain.lower().rstrip(".")) for domain in domains]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        if not names:
            raise CertificateError("a certificate needs at least one domain or address")
        until = min(self._now + datetime.timedelta(days=LEAF_DAYS), authority.not_valid_after_utc)
        # Clients look at the alternative names alone; PostgreSQL's client certificates are mapped by the common name.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(names[0].value)[:64])])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            x509.CertificateBuilder(subject_name=subject, issuer_name=authority.subject, public_key=public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - SKEW)
            .not_valid_after(until)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )

    def _note(self, leaf: x509.Certificate) -> None:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        entry = {
            "at": self._now.isoformat(timespec="seconds"),
            "serial": f"{leaf.serial_number:x}",
            "names": [str(name.value) for name in names],
            "until": leaf.not_valid_after_utc.isoformat(),
        }
        with (self._folder / "issued.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _usage(**allowed: bool) -> x509.KeyUsage:
    usages = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{usage: allowed.get(usage, False) for usage in usages})


def _write(path: Path, content: bytes, *, mode: int) -> None:
    candidate = path.with_name(f".{path.name}.new")
    candidate.unlink(missing_ok=True)
    with os.fdopen(os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    candidate.replace(path)
