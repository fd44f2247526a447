# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files' part: all candidates written beside their places, then renamed into them; and the way back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.compare import real
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import (
    Entry,
    Journal,
    link_or_copy,
    sync_folder,
    write_durably,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import (
    Difference,
    DirectoryChange,
    FileSpec,
)


def swap(root: Path, difference: Difference, journal: Journal, manifest: bytes | None) -> None:
    """Put the candidate in place. A full disk shows while staging, when nothing live was touched.

    Without a manifest, the set is no longer managed afterwards.
    """
    for folder in difference.directories:
        if folder.after and folder.before.kind == "absent":
            _make(root, folder)
    entries = {entry.path: entry for entry in journal.files}
    for item in difference.files:
        if item.after:
            _stage(real(root, entries[item.path].temporary), item.after, item.uid, item.gid)
    own = journal.files[-1]
    if manifest is not None:
        write_durably(real(root, own.temporary), manifest, 0o600, 0, 0)

    if journal.stage == "staging":
        # Not where units were taken down already: then more than files is to be put back.
        journal.save("swapping")
    for item in difference.files:
        target = real(root, item.path)
        if item.after:
            real(root, entries[item.path].temporary).replace(target)
        else:
            target.unlink()
    for folder in difference.directories:
        if folder.after:
            _attributes(real(root, folder.path), folder.after.mode, folder.uid, folder.gid)
        else:
            real(root, folder.path).rmdir()
    if manifest is not None:
        real(root, own.temporary).replace(real(root, own.path))
    else:
        real(root, own.path).unlink(missing_ok=True)
    _sync(root, [entry.path for entry in journal.files])


def _stage(temporary: Path, after: FileSpec, uid: int, gid: int) -> None:
    if not after.target:
        write_durably(temporary, after.content, after.mode, uid, gid)
        return
    temporary.symlink_to(after.target)
    if os.geteuid() == 0:
        # Root's, also below a folder that hands down its group.
        os.lchown(temporary, 0, 0)


def _make(root: Path, folder: DirectoryChange) -> None:
    path = real(root, folder.path)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.mkdir(mode=0o700)


def _attributes(path: Path, mode: int, uid: int, gid: int) -> None:
    facts = path.stat()
    if (facts.st_uid, facts.st_gid) != (uid, gid) and os.geteuid() == 0:
        os.chown(path, uid, gid)
    path.chmod(mode)


def restore(root: Path, journal: Journal) -> None:
    """Put back what the journal kept. May be repeated: every step finds out whether it is still to be done."""
    for entry in journal.directories:
        path = real(root, entry.path)
        if entry.kind == "directory":
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _attributes(path, entry.mode, entry.uid, entry.gid)
    for entry in journal.files:
        real(root, entry.temporary).unlink(missing_ok=True)
    for entry in journal.files:
        _restore_file(root, entry, journal.folder)
    for entry in reversed(journal.directories):
        if entry.kind == "absent":
            _remove_if_empty(real(root, entry.path))
    _sync(root, [entry.path for entry in journal.files])


def _restore_file(root: Path, entry: Entry, backups: Path) -> None:
    path, temporary = real(root, entry.path), real(root, entry.temporary)
    if entry.kind == "absent":
        if path.parent.is_dir():
            path.unlink(missing_ok=True)
        return
    if entry.kind == "symlink":
        if path.is_symlink() and str(path.readlink()) == entry.target:
            # One that was never moved keeps its age, by which a program that was started through it is judged.
            return
        temporary.symlink_to(entry.target)
    else:
        backup = backups / entry.backup
        if path.exists() and not path.is_symlink() and path.samefile(backup):
            return
        try:
            link_or_copy(backup, temporary)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # The new file takes the space that the former one needs.
            temporary.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            link_or_copy(backup, temporary)
    temporary.replace(path)


def _remove_if_empty(path: Path) -> None:
    try:
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        # Something was put there meanwhile that is not ours (a service's state).
        if error.errno != errno.ENOTEMPTY:
            raise


def _sync(root: Path, paths: Iterable[str]) -> None:
    for folder in sorted({real(root, path).parent for path in paths}):
        if folder.is_dir():
            sync_folder(folder)
