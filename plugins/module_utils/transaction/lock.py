# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transaction at a time on a host: two could roll back each other's files."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.storage import trouble
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.compare import real
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import FOLDER, make_private
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError


@contextmanager
def host_lock(root: Path, name: str, timeout: float) -> Iterator[None]:
    """Held as long as this process lives, however it ends: the kernel lets go of it."""
    folder = real(root, FOLDER)
    try:
        make_private(folder)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TransactionError(f"{trouble(error)}. Nothing was changed", phase="swap") from None
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "(unknown)"
                    raise TransactionError(
                        f"Another transaction has held this host for {timeout:g} s: {holder}. Wait for it, or end that "
                        "process: the next run then puts back what it had changed",
                        phase="recover",
                    ) from None
                time.sleep(0.1)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{name}, process {os.getpid()}\n".encode(), 0)
        except OSError as error:
            error.filename = error.filename or str(folder / ".lock")
            raise TransactionError(f"{trouble(error)}. Nothing was changed", phase="swap") from None
        yield
    finally:
        os.close(descriptor)
