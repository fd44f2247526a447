# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A certificate that the user brings along: checked on the controller, before any host gets it."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .host import CertificateError

# ansible-core brings it to every controller. Ansible's import test takes this for a host, which has none.
with suppress(ModuleNotFoundError):
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa


@dataclass(frozen=True)
class Provided:
    """A pair that fits: fullchain.pem, ca.pem and the key, as text."""

    chain: str
    ca: str
    key: str
    days_left: int


def check(
    name: str,
    *,
    certificate: str,
    key: str,
    ca: str | None,
    domains: Iterable[str],
    addresses: Iterable[str],
    now: datetime.datetime,
) -> Provided:
    """Each of certificate, key and ca is a file on the controller or the PEM text itself (from a vault)."""
    label = f"provided certificate {name}"
    chain = _certificates(_text(certificate, f"{label}, certificate"), f"{label}, certificate")
    key_text = _text(key, f"{label}, key")
    try:
        private = serialization.load_pem_private_key(key_text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The error is left out: nothing of a key may reach a log.
        raise CertificateError(f"{label}: the key is not a PEM private key without passphrase") from error
    leaf = chain[0]
    pem = serialization.Encoding.PEM
    spki = (pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*spki) != leaf.public_key().public_bytes(*spki):
        raise CertificateError(
            f"{label}: the key does not belong to the certificate (the leaf has to be the first in the file)"
        )
    if weakness := _weakness(leaf):
        raise CertificateError(
            f"{label} {weakness}, which browsers refuse. Ask its authority for one with an ECDSA key of P-256, or RSA with at least 2048 bits"
        )
    if leaf.not_valid_after_utc <= now:
        raise CertificateError(f"{label} has expired on {leaf.not_valid_after_utc:%Y-%m-%d}")
    if leaf.not_valid_before_utc > now:
        raise CertificateError(f"{label} is valid only from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on")
    for issued, issuer in zip(chain, chain[1:], strict=False):
        if issued.issuer != issuer.subject:
            raise CertificateError(f"{label}: its chain is broken; each certificate has to be followed by its issuer")
    missing = sorted(n for n in [*domains, *addresses] if not _covers(leaf, n))
    if missing:
        raise CertificateError(f"{label} does not cover {', '.join(missing)}")
    authorities = _certificates(_text(ca, f"{label}, ca"), f"{label}, ca") if ca else chain[1:] or chain
    return Provided(
        chain="".join(c.public_bytes(pem).decode() for c in chain),
        ca="".join(c.public_bytes(pem).decode() for c in authorities),
        key=key_text if key_text.endswith("\n") else key_text + "\n",
        days_left=(leaf.not_valid_after_utc - now).days,
    )


def _weakness(leaf: x509.Certificate) -> str:
    """What no browser takes of a key or a signature any more (CA/Browser Forum, baseline requirements 6.1.5 and 7.1.3)."""
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < 2048:
            return f"has an RSA key of {key.key_size} bits"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
            return f"has a key on the curve {key.curve.name}"
    else:
        return "has a key that is neither ECDSA nor RSA"
    if isinstance(leaf.signature_hash_algorithm, (hashes.MD5, hashes.SHA1)):
        return f"is signed with {leaf.signature_hash_algorithm.name.upper()}"
    return ""


def _text(given: str, label: str) -> str:
    if "-----BEGIN " in given:
        return given
    try:
        return Path(given).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateError(f"{label}: {given} cannot be read on the controller ({error})") from error


def _certificates(text: str, label: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise CertificateError(f"{label} holds no PEM certificate") from error


def _covers(leaf: x509.Certificate, name: str) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False  # browsers stopped reading the common name in 2017
    try:
        return ipaddress.ip_address(name) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        pass
    wanted = name.lower().rstrip(".")
    parent = wanted.partition(".")[2]
    held = {domain.lower() for domain in names.get_values_for_type(x509.DNSName)}
    # A wildcard stands for exactly one label (RFC 6125), and a wanted wildcard has to be there as such.
    return wanted in held or (not wanted.startswith("*.") and f"*.{parent}" in held)
