"""Where the test bed keeps what it makes."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

TESTBED = Path(__file__).resolve().parents[1]
REPOSITORY = TESTBED.parents[1]
STATE = REPOSITORY / ".cache" / "testbed"


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One process of this checkout at a time does what `name` says."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
