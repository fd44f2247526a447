# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which old releases may go: never one that runs, nor one that a link points at."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

DELETED = " (deleted)"


@dataclass(frozen=True)
class Use:
    """`unsure`: a process was started through a link that points elsewhere by now, so what it runs cannot be told."""

    versions: frozenset[str]
    unsure: tuple[str, ...] = ()


def prunable(installed: Mapping[str, float], keep: int, protected: Collection[str]) -> list[str]:
    """Oldest first. The `keep` newest stay, by the time of installation; what is protected stays beside those."""
    newest_first = sorted(installed, key=lambda version: (installed[version], version), reverse=True)
    return [version for version in reversed(newest_first[keep:]) if version not in protected]


def in_use(root: Path, versions: Iterable[str], proc: Path = Path("/proc")) -> Use:
    """Processes whose program, script or working folder lies in a release."""
    releases = root.resolve() / "releases"
    inodes = _inodes(releases, versions)
    used: set[str] = set()
    unsure: list[str] = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        program = _program(entry, releases, inodes)
        named, doubtful = _named(entry, root, releases)
        used |= program | named | _version_of(entry / "cwd", releases)
        # What a program of its own is shows in its exe, whatever link it was started through.
        if doubtful and not program:
            unsure.append(f"{entry.name} ({doubtful})")
    return Use(frozenset(used), tuple(unsure))


def _program(process: Path, releases: Path, inodes: Mapping[tuple[int, int], str]) -> set[str]:
    found = _version_of(process / "exe", releases)
    # A process in a mount namespace of its own (RootDirectory=) shows another path, but the same file.
    with contextlib.suppress(OSError):
        status = (process / "exe").stat()
        found |= {inodes[key] for key in [(status.st_dev, status.st_ino)] if key in inodes}
    return found


def _version_of(link: Path, releases: Path) -> set[str]:
    try:
        return _version_in(Path(str(link.readlink()).removesuffix(DELETED)), releases)
    except OSError:  # the process ended meanwhile, or is the kernel's
        return set()


def _named(process: Path, root: Path, releases: Path) -> tuple[set[str], str]:
    """A script or zipapp is run by its interpreter: only its arguments name it."""
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")[:64]
        folder = (process / "cwd").readlink()
    except OSError:
        return set(), ""
    found: set[str] = set()
    for argument in arguments:
        # --config=/path, and plain paths.
        for text in (os.fsdecode(argument), os.fsdecode(argument.rpartition(b"=")[2])):
            if not text or "\n" in text or len(text) > 4096:
                continue
            path = folder / text
            found |= _version_in(Path(os.path.normpath(path)), releases)
            try:
                found |= _version_in(path.resolve(), releases)
            except (OSError, RuntimeError):
                continue
            link = _link_of(path, root)
            if link is not None and _moved_since(link, process):
                return found, str(link)
    return found, ""


def _version_in(path: Path, releases: Path) -> set[str]:
    return {path.relative_to(releases).parts[0]} if path.is_relative_to(releases) and path != releases else set()


def _link_of(path: Path, root: Path) -> Path | None:
    for base in (root, root.resolve()):
        if path.is_relative_to(base) and path != base:
            link = base / path.relative_to(base).parts[0]
            return link if link.is_symlink() else None
    return None


def _moved_since(link: Path, process: Path) -> bool:
    try:
        # Field 22 of stat(5), counted after the name, which may contain anything but ends with the last ")".
        ticks = int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[19])
        # Ticks are rounded down; two more, so that a process started just after the move is not taken for older.
        since_boot = (ticks + 2) / os.sysconf("SC_CLK_TCK")
        started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
        return link.lstat().st_mtime > started
    except (OSError, ValueError, IndexError):
        return False


def _inodes(releases: Path, versions: Iterable[str]) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    for version in versions:
        for folder, _folders, files in os.walk(releases / version):
            for name in files:
                try:
                    status = (Path(folder) / name).lstat()
                except OSError:
                    continue
                if status.st_mode & 0o111:
                    found[(status.st_dev, status.st_ino)] = version
    return found
