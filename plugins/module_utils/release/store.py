# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a component: its releases, and the links that point at them. Every change is one rename."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .model import NAME, Manifest, Place, ReleaseError

HIDDEN = ".incoming-"
LOCK_WAIT = 60.0  # seconds for another run on the same component to end


class Store:
    def __init__(self, place: Place) -> None:
        self.root, self.releases = place.root, place.releases

    def installed(self) -> dict[str, Manifest]:
        """Whole releases only. What has no manifest was put there by others, and is left alone."""
        if not self.releases.is_dir():
            return {}
        found = {path.name: Manifest.read(path) for path in self.releases.iterdir() if NAME.fullmatch(path.name)}
        return {name: manifest for name, manifest in sorted(found.items()) if manifest is not None}

    def links(self) -> dict[str, str]:
        """Every link in the root that points at a release, by name."""
        if not self.root.is_dir():
            return {}
        found: dict[str, str] = {}
        for path in sorted(self.root.iterdir()):
            if path.is_symlink() and not path.name.startswith("."):
                target = Path(os.path.normpath(self.root / path.readlink()))
                if target.parent == self.releases:
                    found[path.name] = target.name
        return found

    def state(self) -> dict[str, Any]:
        return {"releases": list(self.installed()), "links": self.links()}

    def point(self, name: str, version: str | None) -> None:
        link = self.root / name
        if version is None:
            link.unlink(missing_ok=True)
        else:
            fresh = self.root / f".{name}.{secrets.token_hex(4)}"
            fresh.symlink_to(f"releases/{version}")
            try:
                fresh.replace(link)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
        sync_folder(self.root)

    def check_link(self, name: str) -> None:
        link = self.root / name
        if link.exists() and not link.is_symlink():
            raise ReleaseError(f"{link} is no link but a file or folder of somebody's; move it away, then run again.")

    def remove(self, version: str) -> None:
        """Out of sight by one rename first, so that a half-removed release is never taken for one."""
        gone = self.releases / f"{HIDDEN}{secrets.token_hex(6)}"
        (self.releases / version).rename(gone)
        shutil.rmtree(gone)

    def sweep(self) -> None:
        """What a killed run left; only called with the lock held."""
        for path in self.releases.glob(f"{HIDDEN}*"):
            shutil.rmtree(path)
        for path in self.root.glob(".*"):
            if path.is_symlink() and os.readlink(path).startswith("releases/"):  # noqa: PTH115 (no Path: a bare prefix)
                path.unlink()

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden folder on the same file system; gone again however this ends."""
        folder = self.releases / f"{HIDDEN}{secrets.token_hex(6)}"
        folder.mkdir()
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=False)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The folders exist and nobody else changes them; folders made for nothing go again."""
        made = self._make_folders()
        handle = os.open(self.releases, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._lock(handle)
            yield
        except BaseException:
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        finally:
            os.close(handle)

    def _lock(self, handle: int) -> None:
        end = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise ReleaseError(
                        f"Another run has been changing {self.root} for more than {LOCK_WAIT:g} s. Wait for it to end."
                    ) from None
                time.sleep(0.1)

    def _make_folders(self) -> list[Path]:
        missing = [item for item in (self.releases, *self.releases.parents) if not item.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
            own(folder)
        return list(reversed(missing))


def own(path: Path) -> None:
    """Root's, also below a folder that hands down its group."""
    if os.geteuid() == 0:
        os.lchown(path, 0, 0)


def settle(folder: Path) -> None:
    """Ownership, and every byte on the disk before the release gets its name."""
    for parent, _folders, files in os.walk(folder):
        own(Path(parent))
        for name in files:
            path = Path(parent) / name
            own(path)
            if not path.is_symlink():
                _sync(path, os.O_RDONLY)
        sync_folder(Path(parent))


def sync_folder(folder: Path) -> None:
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
