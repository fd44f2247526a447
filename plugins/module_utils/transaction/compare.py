# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The set as asked for beside what lies on the host. Reads only."""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.manifest import Manifest
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import (
    SHARED_DIRECTORIES,
    Difference,
    DirectoryChange,
    DirectorySpec,
    FileChange,
    FileSpec,
    SetSpec,
    Snapshot,
    TransactionError,
)


def real(root: Path, path: str) -> Path:
    """A path of the host below `root`, which is / except in tests."""
    return root / path.lstrip("/")


def snapshot(path: Path) -> Snapshot:
    try:
        facts = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Snapshot("absent")
    mode, uid, gid = stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid
    if stat.S_ISLNK(facts.st_mode):
        return Snapshot("symlink", target=str(path.readlink()), mode=mode, uid=uid, gid=gid)
    if stat.S_ISREG(facts.st_mode):
        return Snapshot("file", content=path.read_bytes(), mode=mode, uid=uid, gid=gid)
    if stat.S_ISDIR(facts.st_mode):
        return Snapshot("directory", mode=mode, uid=uid, gid=gid)
    return Snapshot("other", mode=mode, uid=uid, gid=gid)


class Comparer:
    def __init__(self, root: Path, spec: SetSpec, former: Manifest | None, claimed: Mapping[str, str]) -> None:
        self.root = root
        self.spec = spec
        self.former = former or Manifest(spec.name)
        self.claimed = claimed
        self.difference = Difference()
        self._ids: dict[tuple[str, str], int | None] = {}

    def compare(self) -> Difference:
        for directory in sorted(self.spec.directories, key=lambda item: item.path):
            self._directory(directory)
        for file in self.spec.files:
            self._file(file)
        for path in self._unlisted():
            self._remove(path)
        self._former_directories()
        return self.difference

    def _parents(self, path: str) -> None:
        """Folders above a listed path that do not exist are made, root's; one that is listed is made as listed."""
        listed = {item.path for item in self.spec.directories}
        planned = {item.path for item in self.difference.directories}
        missing = []
        folder = Path(path).parent
        while not os.path.lexists(real(self.root, str(folder))) and str(folder) not in planned:
            if str(folder) not in listed:
                missing.append(DirectorySpec(str(folder), owned=False))
            folder = folder.parent
        for item in reversed(missing):
            self.difference.directories.append(DirectoryChange(item.path, Snapshot("absent"), item))
        if folder != Path("/") and str(folder) not in planned and not real(self.root, str(folder)).is_dir():
            raise TransactionError(f"{path}: {folder} is not a folder; move it away", phase="compare")

    def _id(self, kind: str, name: str, where: str) -> int:
        """A user's or group's number; 0 and a problem where it does not exist (yet)."""
        key = (kind, name)
        if key not in self._ids:
            try:
                if name.isdigit():
                    self._ids[key] = int(name)
                elif kind == "owner":
                    self._ids[key] = pwd.getpwnam(name).pw_uid
                else:
                    self._ids[key] = grp.getgrnam(name).gr_gid
            except KeyError:
                self._ids[key] = None
        number = self._ids[key]
        if number is None:
            thing = "user" if kind == "owner" else "group"
            self._problem(f"{where}: there is no {thing} {name} on this host; create it before, or correct {kind}")
            return 0
        return number

    def _problem(self, text: str) -> None:
        if text not in self.difference.problems:
            self.difference.problems.append(text)

    def _directory(self, item: DirectorySpec) -> None:
        self._parents(item.path)
        before = snapshot(real(self.root, item.path))
        if before.kind not in ("absent", "directory"):
            raise TransactionError(
                f"{item.path} is to be a folder, but a {before.kind} is there; move it away", phase="compare"
            )
        uid, gid = self._id("owner", item.owner, item.path), self._id("group", item.group, item.path)
        if before.kind == "absent" or (before.mode, before.uid, before.gid) != (item.mode, uid, gid):
            self.difference.directories.append(DirectoryChange(item.path, before, item, uid, gid))

    def _file(self, item: FileSpec) -> None:
        before = snapshot(real(self.root, item.path))
        if before.kind in ("directory", "other"):
            raise TransactionError(
                f"{item.path} is to be a {item.kind}, but a {before.kind} is there; move it away", phase="compare"
            )
        self._parents(item.path)
        if item.path in self.claimed:
            self.difference.warnings.append(
                f"{item.path} is managed by the set {self.claimed[item.path]} too; list it in one of them only"
            )
        if item.target:
            if (before.kind, before.target) != ("symlink", item.target):
                hidden = self._was_secret(item.path)
                self.difference.files.append(FileChange(item.path, before, item, secret=hidden))
            return
        uid, gid = self._id("owner", item.owner, item.path), self._id("group", item.group, item.path)
        same = before.kind == "file" and before.content == item.content
        if not same or (before.mode, before.uid, before.gid) != (item.mode, uid, gid):
            hidden = item.secret or self._was_secret(item.path)
            self.difference.files.append(FileChange(item.path, before, item, uid, gid, secret=hidden))

    def _was_secret(self, path: str) -> bool:
        return bool(self.former.files.get(path, {}).get("secret"))

    def _unlisted(self) -> list[str]:
        """Files of the former manifest that are no longer listed, and strangers in owned folders."""
        listed = {item.path for item in self.spec.files} | {item.path for item in self.spec.directories}
        going = {path for path in self.former.files if path not in listed}
        for item in self.spec.directories:
            folder = real(self.root, item.path)
            if not item.owned or not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                path = f"{item.path}/{entry.name}"
                matches = item.pattern is None or fnmatch.fnmatchcase(entry.name, item.pattern)
                # A folder in an owned folder is not ours to empty.
                if matches and path not in listed and not entry.is_dir(follow_symlinks=False):
                    going.add(path)
        return sorted(path for path in going if path not in self.claimed)

    def _remove(self, path: str) -> None:
        before = snapshot(real(self.root, path))
        if before.kind in ("file", "symlink"):
            readable = before.mode & 0o004
            # A stranger that not everybody may read is not shown in a diff either.
            hidden = self._was_secret(path) or (
                path not in self.former.files and before.kind == "file" and not readable
            )
            self.difference.files.append(FileChange(path, before, None, secret=hidden))

    def _former_directories(self) -> None:
        """Folders that this set made and no longer lists go, if nothing else is in them."""
        listed = {item.path for item in self.spec.directories} | self.spec.parents
        going = {item.path for item in self.difference.files if item.after is None}
        for path in sorted(set(self.former.made) - listed - SHARED_DIRECTORIES, reverse=True):
            folder = real(self.root, path)
            if folder.is_dir() and not folder.is_symlink():
                left = {f"{path}/{entry.name}" for entry in os.scandir(folder)} - going
                if not left:
                    going.add(path)
                    self.difference.directories.append(DirectoryChange(path, snapshot(folder), None))


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _shown(content: bytes, *, secret: bool, side: str) -> str:
    if secret:
        return f"(secret content, {side})\n"
    text = _text(content)
    return text if text is not None else f"(binary content, {len(content)} bytes, {side})\n"


def _attributes(mode: int, uid: int, gid: int) -> str:
    return f"mode: {mode:04o}\nowner: {uid}\ngroup: {gid}\n"


def diffs(difference: Difference) -> list[dict[str, Any]]:
    """What Ansible prints with --diff. Bytes of a secret are on neither side."""
    result: list[dict[str, Any]] = []
    for item in difference.files:
        before, after = item.before, item.after
        new = after.content if after else b""
        target = after.target if after else ""
        if after is None or target or before.kind != "file" or before.content != new:
            old_text = "" if before.kind == "absent" else _shown(before.content, secret=item.secret, side="before")
            if before.kind == "symlink":
                old_text = f"(link to {before.target})\n"
            new_text = _shown(new, secret=item.secret, side="after") if after else ""
            result.append(
                {
                    "before_header": item.path if before.kind != "absent" else f"{item.path} (absent)",
                    "after_header": item.path if after else f"{item.path} (absent)",
                    "before": old_text,
                    "after": f"(link to {target})\n" if target else new_text,
                }
            )
        if after and not target and before.kind == "file":
            _attribute_diff(result, item.path, before, _attributes(after.mode, item.uid, item.gid))
    for folder in difference.directories:
        if folder.after and folder.before.kind == "directory":
            wanted = _attributes(folder.after.mode, folder.uid, folder.gid)
            _attribute_diff(result, folder.path, folder.before, wanted)
        else:
            state = ("absent", "directory") if folder.after else ("directory", "absent")
            result.append(
                {
                    "before_header": folder.path,
                    "after_header": folder.path,
                    "before": f"state: {state[0]}\n",
                    "after": f"state: {state[1]}\n",
                }
            )
    return result


def _attribute_diff(result: list[dict[str, Any]], path: str, before: Snapshot, wanted: str) -> None:
    current = _attributes(before.mode, before.uid, before.gid)
    if current != wanted:
        header = f"{path} (attributes)"
        result.append({"before_header": header, "after_header": header, "before": current, "after": wanted})
