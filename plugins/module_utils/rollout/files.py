# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ledger and the lock on the fleet keep on a host: small files that are whole or not there."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.storage import trouble
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import (
    make_private,
    sync_folder,
    write_durably,
)


class RolloutError(Exception):
    """What cannot be recorded or locked; written for the operator."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts


def now() -> datetime:
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """UTC in ISO 8601. The fraction of the second is for the order of two moments."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else reads, decides and writes in this folder meanwhile. The kernel lets go of it, however the process ends."""
    try:
        _make(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RolloutError(trouble(error)) from None


def write_whole(path: Path, data: Mapping[str, Any]) -> None:
    """Only within alone(): the name of the temporary file is the same each time, so that none is left over for long."""
    temporary = path.with_name(f".{path.name}.new")
    write_durably(temporary, (json.dumps(data, indent=1) + "\n").encode(), 0o600, 0, 0)
    temporary.replace(path)
    sync_folder(path.parent)


def _make(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    make_private(folder)
    for made in missing:
        sync_folder(made.parent)
