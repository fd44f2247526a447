# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lay there before, on disk: a run that is killed in the middle is undone by the next one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.compare import real
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import (
    Difference,
    Snapshot,
    TransactionError,
)

FOLDER = "/var/lib/selfhost/transactions"
VERSION = 1

# staging: nothing live was touched; swapping: files may be new; applying: running state too; pending: it holds, and
# goes unless it is confirmed; committed: it stays.
Stage = Literal["staging", "swapping", "applying", "pending", "committed"]


@dataclass
class Entry:
    """A path and what was there. `backup` is a second link to the former file, or a copy on another file system."""

    path: str
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    target: str = ""
    backup: str = ""
    temporary: str = ""


@dataclass
class UnitEntry:
    """A unit's former state, and how it takes up its configuration."""

    name: str
    active: bool
    enabled: bool | None
    action: str
    touched: bool = False


@dataclass
class Journal:
    root: Path
    name: str
    stage: Stage = "staging"
    files: list[Entry] = field(default_factory=list)
    directories: list[Entry] = field(default_factory=list)
    units: list[UnitEntry] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    daemon_reload: bool = False
    change: str = ""  # of many runs, this one

    @property
    def folder(self) -> Path:
        return real(self.root, FOLDER) / self.name

    @classmethod
    def interrupted(cls, root: Path) -> list[str]:
        """Names of the sets whose last run did not come to an end."""
        folder = real(root, FOLDER)
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())

    @classmethod
    def load(cls, root: Path, name: str) -> Journal | None:
        """The journal of an interrupted run. None if it had not even been written: then nothing was touched."""
        path = real(root, FOLDER) / name / "journal.json"
        try:
            data: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise TransactionError(
                f"{path}: the journal of an interrupted run cannot be read ({error}); the former files lie beside it: "
                "put back what is needed, then remove the folder",
                phase="recover",
            ) from None
        if data.get("version") != VERSION:
            raise TransactionError(
                f"{path}: version {data.get('version')!r} of the journal is not known; "
                "run once with the release of the collection that wrote it",
                phase="recover",
            )
        return cls(
            root=root,
            name=name,
            stage=data["stage"],
            files=[Entry(**item) for item in data["files"]],
            directories=[Entry(**item) for item in data["directories"]],
            units=[UnitEntry(**item) for item in data["units"]],
            commands=data["commands"],
            daemon_reload=data["daemon_reload"],
            change=data.get("change", ""),
        )

    def begin(self, difference: Difference, manifest: str) -> None:
        """Keep what is there, before anything is touched."""
        make_private(self.folder)
        changes: list[tuple[str, Snapshot | None]] = [(item.path, item.before) for item in difference.files]
        for index, (path, _before) in enumerate([*changes, (manifest, None)]):
            self.files.append(self._keep(index, path))
        for item in difference.directories:
            before = item.before
            self.directories.append(Entry(item.path, before.kind, before.mode, before.uid, before.gid))
        self.save()

    def _keep(self, index: int, path: str) -> Entry:
        source = real(self.root, path)
        temporary = str(Path(path).parent / f".{Path(path).name[:200]}.selfhost-{self.change}")
        try:
            facts = source.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Entry(path, "absent", temporary=temporary)
        entry = Entry(path, "file", stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid, temporary=temporary)
        if stat.S_ISLNK(facts.st_mode):
            entry.kind, entry.target = "symlink", str(source.readlink())
            return entry
        entry.backup = f"{index:04d}"
        link_or_copy(source, self.folder / entry.backup)
        return entry

    def save(self, stage: Stage | None = None) -> None:
        """The stage holds from when it is on disk."""
        stage = stage or self.stage
        data = {
            "version": VERSION,
            "stage": stage,
            "files": [asdict(item) for item in self.files],
            "directories": [asdict(item) for item in self.directories],
            "units": [asdict(item) for item in self.units],
            "commands": self.commands,
            "daemon_reload": self.daemon_reload,
            "change": self.change,
        }
        temporary = self.folder / "journal.new"
        write_durably(temporary, json.dumps(data).encode(), 0o600, 0, 0)
        temporary.replace(self.folder / "journal.json")
        sync_folder(self.folder)
        self.stage = stage

    def remove(self) -> None:
        """The journal itself goes first: without it, what is left over says that nothing is to be undone."""
        (self.folder / "journal.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder)


def make_private(folder: Path) -> None:
    """A folder for root alone; the one above it, the collection's own, may be read."""
    for parent in reversed([folder, *folder.parents]):
        if not parent.exists():
            parent.mkdir(mode=0o755 if parent.name == "selfhost" else 0o700)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for the same file needs no space and keeps all its attributes; else copy bytes, mode and owner."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        facts = source.stat()
        write_durably(target, source.read_bytes(), stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid)


def write_durably(path: Path, content: bytes, mode: int, uid: int, gid: int) -> None:
    """A new file with these bytes on disk. It is root's alone until it is complete."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            facts = os.fstat(file.fileno())
            if (facts.st_uid, facts.st_gid) != (uid, gid) and os.geteuid() == 0:
                os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError as error:
        # What fails on a descriptor names no file; the operator wants to know which disk is full.
        error.filename = error.filename or str(path)
        raise


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
