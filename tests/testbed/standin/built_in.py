"""What the builder wrote into this executable: its version and its variant."""

from __future__ import annotations

import json
import pkgutil
from dataclasses import dataclass

VARIANTS = {
    "none": "the program as it should be",
    "crash-at-start": "exits 1 at every start, after the migrations",
    "crash-once": "exits 1 at its first start on a database, starts after that",
    "never-healthy": "runs, but /health answers 503 for ever",
    "slow-start": "listens only after --seconds",
    "fails-in-use": "/health answers 503 from --seconds after the first request below /api/v1/ on",
    "crash-in-use": "exits 1 --seconds after the first request below /api/v1/, at every start",
    "bad-answers": "healthy, but every fifth request below /api/v1/ answers 500",
    "hang-on-stop": "ignores SIGTERM once it has dropped its WebSockets",
    "failing-migration": "its migration fails and is undone: the version before still starts",
    "poisonous-migration": "its migration works, but the version before cannot start any more",
    "ruinous-migration": "its migration fails half-way: neither this version nor the one before starts",
}


@dataclass(frozen=True)
class BuiltIn:
    """The version and behaviour of this executable."""

    version: str
    variant: str = "none"
    seconds: float = 20.0

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers: 2026.3.7-rc.13 is (2026, 3, 7)."""
        return tuple(int(part) for part in self.version.split("-")[0].split("."))

    @property
    def generation(self) -> int:
        """2026 for the contract of that year, 2025 for everything before."""
        return 2026 if self.number >= (2026,) else 2025


def load() -> BuiltIn:
    """Read what the builder wrote; run from its source, it is a version of its own."""
    try:
        data = pkgutil.get_data(__package__ or "", "built_in.json")
    except FileNotFoundError:
        data = None
    return BuiltIn(**json.loads(data)) if data else BuiltIn(version="2026.0.0")
