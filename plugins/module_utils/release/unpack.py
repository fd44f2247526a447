# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking archives of tar and zip, refusing whatever would leave the release's folder."""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from .model import MANIFEST, ReleaseError

Kind = Literal["tar", "zip", "zstd", "gzip"]
REFUSED = "that is refused, and nothing was installed. Is it the publisher's archive? If so, repack it without that."
LISTED = 8  # names of an archive that a message shows


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in an archive. `target` is what a link points at."""

    name: str
    kind: Literal["file", "directory", "symlink", "hardlink", "other"]
    executable: bool = False
    target: str = ""
    handle: tarfile.TarInfo | zipfile.ZipInfo | None = None


def archive_kind(path: Path) -> Kind | None:
    """By its first bytes. A zip that is only appended to a program (zipapp, self-extracting) is a program."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    if head[257:262] == b"ustar" or head.startswith((b"\xfd7zXZ\x00", b"BZh")):
        return "tar"
    if head.startswith(b"\x1f\x8b"):
        return "tar" if tarfile_inside(path) else "gzip"
    return None


def tarfile_inside(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:*"):
            return True
    except tarfile.ReadError as error:
        # An archive that breaks off is still one, and is told so when it is read.
        return "unexpected end" in str(error) or "end-of-stream" in str(error)
    except (EOFError, zlib.error):
        return True


def unpack(archive: Path, kind: Kind, target: Path, *, member: str | None, executable: str, shown: str) -> None:
    """All of it, or below `member`, into `target`; a member that is a file becomes `executable`."""
    if kind in ("zstd", "gzip"):
        raise ReleaseError(
            f"{shown} is {kind}-compressed and no tar or zip archive that can be unpacked here. Repack it as .tar.xz."
        )
    try:
        with _Archive.opened(archive, kind) as opened:
            _extract(opened, target, member, executable, shown)
    except (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError) as error:
        raise _damaged(shown, error) from error
    except OSError as error:
        # gzip and bzip2 report damage as an OSError without errno.
        if error.errno is None:
            raise _damaged(shown, error) from error
        raise
    except (RuntimeError, NotImplementedError) as error:
        raise ReleaseError(f"{shown} cannot be unpacked: {error}. Repack it as .tar.xz, without a password.") from error


def _damaged(shown: str, error: Exception) -> ReleaseError:
    return ReleaseError(
        f"{shown} is cut off or damaged: {error or type(error).__name__}. Its checksum is the one asked for, "
        "so it was published or computed that way: fetch it again and compare the checksum with the publisher's."
    )


class _Archive:
    def __init__(self, archive: tarfile.TarFile | zipfile.ZipFile) -> None:
        self._archive = archive

    @classmethod
    @contextmanager
    def opened(cls, path: Path, kind: Kind) -> Iterator[_Archive]:
        with tarfile.open(path, "r:*") if kind == "tar" else zipfile.ZipFile(path) as archive:
            yield cls(archive)

    def entries(self) -> Iterator[Entry]:
        if isinstance(self._archive, tarfile.TarFile):
            for info in self._archive:
                yield _tar_entry(info)
        else:
            for item in self._archive.infolist():
                yield _zip_entry(self._archive, item)

    def open(self, entry: Entry) -> IO[bytes]:
        if isinstance(self._archive, tarfile.TarFile):
            stream = self._archive.extractfile(entry.handle) if isinstance(entry.handle, tarfile.TarInfo) else None
        else:
            stream = self._archive.open(entry.handle) if isinstance(entry.handle, zipfile.ZipInfo) else None
        if stream is None:
            raise ReleaseError(f"{entry.name!r} in the archive has no content.")
        return stream


def _zip_entry(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Entry:
    mode = item.external_attr >> 16
    if item.is_dir():
        return Entry(name=item.filename, kind="directory", handle=item)
    if stat.S_ISLNK(mode):
        target = archive.read(item).decode("utf-8", "surrogateescape")
        return Entry(name=item.filename, kind="symlink", target=target, handle=item)
    odd = stat.S_IFMT(mode) not in (0, stat.S_IFREG)
    return Entry(name=item.filename, kind="other" if odd else "file", executable=bool(mode & 0o111), handle=item)


def _tar_entry(info: tarfile.TarInfo) -> Entry:
    kind: Literal["file", "directory", "symlink", "hardlink", "other"] = "other"
    if info.isreg():
        kind = "file"
    elif info.isdir():
        kind = "directory"
    elif info.issym():
        kind = "symlink"
    elif info.islnk():
        kind = "hardlink"
    return Entry(name=info.name, kind=kind, executable=bool(info.mode & 0o111), target=info.linkname, handle=info)


def _extract(archive: _Archive, target: Path, member: str | None, executable: str, shown: str) -> None:
    taken = 0
    seen: list[str] = []
    links: list[tuple[Path, Entry]] = []
    for entry in archive.entries():
        name = _safe_name(entry.name, shown)
        if len(seen) < LISTED:
            seen.append(entry.name)
        if entry.kind == "other":
            raise ReleaseError(f"{shown} contains {entry.name!r}, a device or pipe; {REFUSED}")
        inside = _below(name, member)
        if inside is None:
            continue
        if inside == "." and member is not None and entry.kind != "directory":
            if entry.kind != "file":
                raise ReleaseError(
                    f"member {member!r} in {shown} is a link to {entry.target!r}: name that file itself."
                )
            inside = executable
        if inside == MANIFEST:
            raise ReleaseError(f"{shown} contains {MANIFEST!r}, the name of the manifest that is kept of each release.")
        _place(archive, entry, target, inside, member, shown)
        taken += 1
        if entry.kind == "symlink":
            links.append((target / inside, entry))
    base = target.resolve()
    for path, entry in links:
        # By name it may stay inside and yet leave through another link ("x/../..", x being a link).
        if not path.resolve().is_relative_to(base):
            raise _outside(entry, shown)
    if not taken:
        what = f"does not contain {member!r}" if member else "is empty"
        more = " and more" if len(seen) == LISTED else ""
        raise ReleaseError(f"{shown} {what}. It contains: {', '.join(seen) or 'nothing'}{more}.")


def _below(name: str, member: str | None) -> str | None:
    if member is None or name == ".":
        return name if member is None else None
    return posixpath.relpath(name, member) if name == member or name.startswith(member + "/") else None


def _safe_name(name: str, shown: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ReleaseError(f"{shown} contains {name!r}, a path that leaves the release's folder; {REFUSED}")
    return str(path)


def _place(archive: _Archive, entry: Entry, target: Path, inside: str, member: str | None, shown: str) -> None:
    path = target / inside
    _parents(target, path.parent, entry, shown)
    if entry.kind == "directory":
        if path.is_symlink():
            raise ReleaseError(f"{shown} contains {entry.name!r} as a link and as a directory; {REFUSED}")
        _directory(path)
        return
    if path.is_dir() and not path.is_symlink():
        raise ReleaseError(f"{shown} contains {entry.name!r} as a directory and as a file; {REFUSED}")
    path.unlink(missing_ok=True)
    if entry.kind == "symlink":
        _inside_link(inside, entry, shown)
        path.symlink_to(entry.target)
    elif entry.kind == "hardlink":
        origin = _below(_safe_name(entry.target, shown), member)
        first = target / origin if origin is not None else None
        if first is None or first.is_symlink() or not first.is_file() or _through_link(target, first.parent):
            raise ReleaseError(
                f"{shown} contains {entry.name!r}, a link to {entry.target!r}, which was not unpacked; {REFUSED}"
            )
        os.link(first, path)
    else:
        with archive.open(entry) as stream, path.open("xb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
        path.chmod(0o755 if entry.executable else 0o644)


def _parents(target: Path, folder: Path, entry: Entry, shown: str) -> None:
    if _through_link(target, folder):
        raise ReleaseError(f"{shown} contains {entry.name!r}, which would be written through a link; {REFUSED}")
    missing = [item for item in (folder, *folder.parents) if item.is_relative_to(target) and not item.exists()]
    for item in reversed(missing):
        _directory(item)


def _through_link(target: Path, folder: Path) -> bool:
    return any(
        item.is_symlink() for item in (folder, *folder.parents) if item.is_relative_to(target) and item != target
    )


def _directory(path: Path) -> None:
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    path.chmod(0o755)


def _inside_link(inside: str, entry: Entry, shown: str) -> None:
    where = posixpath.normpath(posixpath.join(posixpath.dirname(inside), entry.target))
    if entry.target.startswith("/") or where == ".." or where.startswith("../") or "\0" in entry.target:
        raise _outside(entry, shown)


def _outside(entry: Entry, shown: str) -> ReleaseError:
    return ReleaseError(
        f"{shown} contains {entry.name!r}, a link to {entry.target!r} outside of the release's folder; {REFUSED}"
    )
