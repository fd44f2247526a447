"""Passwords, tokens, and the limits on asking for them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time

ROUNDS = 20_000
WINDOW = 60.0  # seconds
TOKEN_LIFE = 900  # seconds


def hash_password(password: str) -> str:
    """Hash a password with a salt of its own."""
    salt = os.urandom(16)
    return f"{salt.hex()}${hashlib.pbkdf2_hmac('sha256', password.encode(), salt, ROUNDS).hex()}"


def password_matches(password: str, stored: str) -> bool:
    """Compare a password with its hash."""
    salt, _dollar, digest = stored.partition("$")
    own = hashlib.pbkdf2_hmac("sha256", password.encode(), bytes.fromhex(salt), ROUNDS).hex()
    return hmac.compare_digest(own, digest)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signature(text: str, secret: str) -> str:
    return _encode(hmac.digest(secret.encode(), text.encode(), "sha256"))


def make_token(subject: str, secret: str) -> str:
    """Make a JWT; every instance with the same secret accepts it."""
    header = _encode(b'{"alg":"HS256","typ":"JWT"}')
    claims = _encode(json.dumps({"sub": subject, "exp": int(time.time()) + TOKEN_LIFE}).encode())
    return f"{header}.{claims}.{_signature(f'{header}.{claims}', secret)}"


def token_subject(token: str, secret: str) -> str | None:
    """Whom a JWT names, or None if it is not ours or too old."""
    text, _dot, signature = token.rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(text, secret).encode()):
        return None
    claims = text.partition(".")[2]
    content = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return str(content["sub"]) if content["exp"] > time.time() else None


class Limit:
    """So many a minute for each client address; 0 is no limit."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._seen: dict[str, tuple[float, int]] = {}

    def exceeded(self, client: str) -> bool:
        """Count one more, and say whether it is one too many."""
        now = time.monotonic()
        since, count = self._seen.get(client, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        self._seen[client] = (since, count + 1)
        return bool(self.number) and count + 1 > self.number
