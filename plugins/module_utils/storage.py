# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk refused, in words: what, where, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
REMEDIES = {
    errno.EROFS: "The file system there is mounted read-only: look at the end of dmesg for why, and mount it for writing",
    errno.EIO: "The disk there has errors: see dmesg",
}


def free(where: Path) -> str:
    """How much of the file system of a folder, or of what is to become one, is free."""
    for folder in (where, *where.parents):
        if folder.exists():
            usage = os.statvfs(folder)
            inodes = ", no inode is free" if usage.f_files and not usage.f_favail else ""
            return f"{usage.f_bavail * usage.f_frsize // (1 << 20)} MiB free{inodes}"
    return "unknown how much is free"


def trouble(error: OSError) -> str:
    """Without a full stop at the end, as part of a sentence of the caller's."""
    words = error.strerror or str(error)
    path = str(error.filename) if error.filename else ""
    said = f"{path}: {words}" if path else words
    if error.errno in FULL:
        folder = Path(path).parent
        room = f" ({free(folder)} in {folder})" if path else ""
        return f"{said}{room}. The disk is full: free some space there, and run again"
    remedy = REMEDIES.get(error.errno or 0)
    return f"{said}. {remedy}" if remedy else said
