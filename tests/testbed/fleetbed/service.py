"""The inventory's entry for Fluxbase, with the stand-in as its release and secrets of its own: what test fleets have in common."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any

from .engine import TestbedError
from .image import DEFAULT_OS
from .paths import REPOSITORY

DOMAIN = "fluxbase.test"
# The contract that a release of Debian can carry: 12 has no package of the extension that the versions since 2026 want.
VERSIONS = {"debian-13": "2026.3.6", "debian-12": "0.9.4"}
VERSION = VERSIONS[DEFAULT_OS]
# What several hosts have to share: the plan asks for each.
SHARED_SETTINGS = {
    "FLUXBASE_SCALING_BACKEND": "postgres",
    "FLUXBASE_SCALING_ENABLE_SCHEDULER_LEADER_ELECTION": "true",
    "FLUXBASE_STORAGE_PROVIDER": "s3",
}


def standin(version: str = VERSION) -> Path:
    """The program that keeps Fluxbase's contract; make builds it."""
    program = REPOSITORY / ".cache" / "standin" / f"fluxbase-{version}"
    if not program.exists():
        raise TestbedError(f"{program} is missing: make builds it")
    return program


def fluxbase(version: str = VERSION, **changes: Any) -> dict[str, Any]:
    """`changes` are further keys of the entry, or others than these."""
    program = standin(version)
    return {
        "version": version,
        "domain": DOMAIN,
        "release": {"source": str(program), "checksum": f"sha256:{hashlib.sha256(program.read_bytes()).hexdigest()}"},
        "settings": {"FLUXBASE_JOBS_ENABLED": "false"},
        "secrets": made_secrets(version),
        **changes,
    }


def made_secrets(version: str = VERSION) -> dict[str, str]:
    """As the contract of the version wants them."""
    made = {"FLUXBASE_DATABASE_PASSWORD": secrets.token_hex(24)}
    if version == VERSIONS["debian-12"]:
        return {**made, "FLUXBASE_JWT_SECRET": secrets.token_urlsafe(48)}
    return {
        **made,
        "FLUXBASE_AUTH_JWT_SECRET": secrets.token_urlsafe(48),
        "FLUXBASE_ENCRYPTION_KEY": secrets.token_hex(16),
    }
