# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked for, and what a release says of itself."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..storage import FULL, free

MANIFEST = ".release.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")
LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")


class ReleaseError(Exception):
    """What went wrong, where, and what to do; nothing of a failed installation is left on the host."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a release of whatever kind lies, and which links point at it."""

    root: Path
    version: str
    executable: str
    links: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def path(self) -> Path:
        return self.releases / self.version

    @staticmethod
    def common(options: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that every kind has."""
        root = str(options["root"])
        if not root.startswith("/") or ".." in PurePosixPath(root).parts or len(PurePosixPath(root).parts) < 3:
            raise ReleaseError(
                f"root is {root!r}; it is an absolute folder of the component's own, as /opt/fluxbase/server."
            )
        links = {str(name): None if to is None else str(to) for name, to in (options.get("links") or {}).items()}
        for name, to in links.items():
            if not LINK.fullmatch(name) or name == "releases":
                raise ReleaseError(f"links: {name!r} is not a name for a link; letters, digits, _ and - are.")
            if to is not None:
                _version(f"links.{name}", to)
        return {
            "root": Path(root),
            "version": _version("version", str(options["version"])),
            "executable": inner_path("executable", str(options["executable"])),
            "links": links,
        }


@dataclass(frozen=True, kw_only=True)
class Wanted(Place):
    """A program or an archive, from the controller, the host's disk or an https address."""

    source: str
    checksum: str
    source_on_host: bool = False
    member: str | None = None
    version_command: tuple[str, ...] = ()
    version_pattern: str = "{version}"
    version_timeout: float = 30.0
    keep: int = 3
    mode: int = 0o755

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Wanted:
        source, checksum = str(options.get("source") or ""), str(options.get("checksum") or "").lower()
        place = cls.common(options)
        if not CHECKSUM.fullmatch(checksum):
            raise ReleaseError(
                f"checksum is {checksum!r}; it is sha256: and 64 hexadecimal digits. Publishers put it beside the file."
            )
        if "://" in source and not source.startswith("https://"):
            raise ReleaseError(
                f"source {source.partition('://')[0]}://... is not supported: give a file or an https address."
            )
        if not source:
            raise ReleaseError("source is empty: name a file or an https address.")
        keep = int(options.get("keep") or 3)
        if keep < 1:
            raise ReleaseError(f"keep is {keep}; at least one release stays.")
        mode = str(options.get("mode") or "0755")
        if not re.fullmatch(r"0?[0-7]{3}", mode) or not int(mode, 8) & 0o100:
            raise ReleaseError(
                f"mode is {mode!r}; it is octal, as a string, executable for its owner, without special bits."
            )
        return cls(
            **place,
            source=source,
            source_on_host=bool(options.get("source_on_host")),
            checksum=checksum,
            member=inner_path("member", str(options["member"])) if options.get("member") else None,
            version_command=tuple(str(item) for item in options.get("version_command") or ()),
            version_pattern=str(options.get("version_pattern") or "{version}"),
            version_timeout=float(options.get("version_timeout") or 30.0),
            keep=keep,
            mode=int(mode, 8),
        )

    @property
    def remote(self) -> bool:
        return self.source.startswith("https://")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The proof that a release is whole; written last, before the release gets its name."""

    version: str
    checksum: str
    executable: str
    sha256: str
    size: int
    mtime_ns: int
    installed: float
    member: str | None = None
    package: str | None = None  # Debian's, with its version and revision, of a release that dpkg installed

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, release: Path) -> Manifest | None:
        """None where there is none, or none that can be understood."""
        try:
            content = json.loads((release / MANIFEST).read_text(encoding="utf-8"))
            known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
            return cls(**known)
        except (OSError, ValueError, TypeError):
            return None


def inner_path(option: str, text: str) -> str:
    """A path below a release or an archive, without "./"."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in text:
        raise ReleaseError(f"{option} is {text!r}; it is a path inside, neither absolute nor with '..'.")
    if option == "executable" and path == PurePosixPath(MANIFEST):
        raise ReleaseError(f"executable cannot be {MANIFEST}: that is the release's manifest.")
    return str(path)


def _version(option: str, text: str) -> str:
    if not NAME.fullmatch(text):
        raise ReleaseError(
            f"{option} is {text!r}; a version is letters, digits and . _ + ~ -, and begins with one of the former."
        )
    return text


def os_error(error: OSError, doing: str, where: Path) -> ReleaseError:
    """An errno in words, with what to do where that is known."""
    words = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno in FULL:
        return ReleaseError(
            f"The disk is full: {doing} failed below {where} ({free(where)}). Nothing of it was left behind. "
            "Free some space there, or lower keep so that fewer old releases stay."
        )
    if error.errno == errno.EROFS:
        words += "; the file system is mounted read-only"
    path = f" ({error.filename})" if error.filename else ""
    return ReleaseError(f"{doing} failed below {where}: {words}{path}.")


def sentence(items: Sequence[str]) -> str:
    return ", ".join(items) if items else "none"
