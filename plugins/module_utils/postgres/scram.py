# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677) in PostgreSQL's notation, made without PostgreSQL."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass

ITERATIONS = 4096
SALT_BYTES = 16
_SALT_LABEL = "selfhost.fleet scram salt v1"
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


class ScramError(Exception):
    """A password or verifier that cannot be used; the message never holds either."""


@dataclass(frozen=True)
class Verifier:
    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __str__(self) -> str:
        salt, stored, server = (
            b64encode(part).decode("ascii") for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    def accepts(self, password: str) -> bool:
        candidate = _derive(_normalised(password, "the role"), self.salt, self.iterations)
        return hmac.compare_digest(candidate.stored_key, self.stored_key)


def make_verifier(password: str, role: str, *, namespace: str = "", iterations: int = ITERATIONS) -> Verifier:
    """The verifier of `role` with `password`; the same arguments always give the same verifier."""
    if not role:
        raise ScramError("A SCRAM verifier needs the name of its role; it is empty.")
    secret = _normalised(password, role)
    # Never from the password: a server tells the salt to whoever asks to log in, and one made from the password would
    # let anyone test guesses offline, at one hash each.
    salt = hashlib.sha256("\0".join((_SALT_LABEL, namespace, role)).encode("utf-8")).digest()[:SALT_BYTES]
    return _derive(secret, salt, iterations)


def parse_verifier(text: str) -> Verifier:
    match = _VERIFIER.fullmatch(text)
    if match is None:
        raise ScramError("This is no SCRAM-SHA-256 verifier; make one with the filter selfhost.fleet.scram_verifier.")
    try:
        salt, stored, server = (b64decode(part, validate=True) for part in match.groups()[1:])
    except Base64Error as error:
        raise ScramError("A SCRAM-SHA-256 verifier holds something that is not base64.") from error
    if len(stored) != hashlib.sha256().digest_size or len(server) != hashlib.sha256().digest_size:
        raise ScramError("A SCRAM-SHA-256 verifier holds keys of another length than 32 bytes.")
    return Verifier(iterations=int(match.group(1)), salt=salt, stored_key=stored, server_key=server)


def _derive(secret: bytes, salt: bytes, iterations: int) -> Verifier:
    salted = hashlib.pbkdf2_hmac("sha256", secret, salt, iterations)
    client_key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    server_key = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    return Verifier(
        iterations=iterations, salt=salt, stored_key=hashlib.sha256(client_key).digest(), server_key=server_key
    )


def _normalised(password: str, role: str) -> bytes:
    # SASLprep leaves printable ASCII as it is. Beyond it clients disagree (libpq prepares, some drivers send bytes),
    # and the one password would then have two verifiers: refused, rather than right for some clients only.
    if not password:
        raise ScramError(f"The password of {role} is empty.")
    if any(not " " <= character <= "~" for character in password):
        raise ScramError(
            f"The password of {role} has characters other than printable ASCII, which drivers prepare differently for "
            "SCRAM. Use letters, digits and ASCII punctuation."
        )
    return password.encode("ascii")
