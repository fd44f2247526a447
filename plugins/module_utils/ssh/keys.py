# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Public keys as they stand in an authorized_keys file."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

_KEY = re.compile(r"(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.-]+)\s+([A-Za-z0-9+/]+={0,2})(?:\s|$)")
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


@dataclass(frozen=True)
class Key:
    """`bits` of an RSA key, 0 of others. A `authority` signs the keys of users, which are not known here."""

    kind: str
    bits: int
    authority: bool = False

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The signature algorithms that it can be used with."""
        return _RSA if self.kind == "ssh-rsa" else (self.kind,)


def parse(line: str) -> Key | None:
    """The key of a line, None where there is none that sshd could use."""
    found = None if line.lstrip().startswith("#") else _KEY.search(line)
    if found is None:
        return None
    try:
        fields = _fields(base64.b64decode(found.group(2), validate=True))
    except (binascii.Error, ValueError):
        return None
    kind = found.group(1)
    if len(fields) < 2 or fields[0] != kind.encode():
        return None
    bits = int.from_bytes(fields[2], "big").bit_length() if kind == "ssh-rsa" and len(fields) == 3 else 0
    return Key(kind, bits, authority="cert-authority" in line[: found.start(1)])


def _fields(blob: bytes) -> list[bytes]:
    """RFC 4253: each string has its length in front."""
    fields = []
    while blob:
        size = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + size:
            raise ValueError("cut off")
        fields.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    return fields
