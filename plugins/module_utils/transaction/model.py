# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transaction is about: the set as it was asked for, what lies on the host, and the difference."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

# The controller wraps secret content before it sends it. What Ansible scrubs from a result is then this envelope, which
# occurs nowhere else; a short secret would otherwise blank every word that contains it.
ENVELOPE = re.compile(r"\Aselfhost-envelope:[0-9a-f]{32}:([A-Za-z0-9+/=]*)\Z")

# Under which the host's settled sets are known in a play, until something changes: transaction/settled.py.
SETTLED_FACT = "fleet_settled"

# Folders that belong to the system or to many: they can only be owned in part, by a pattern.
SHARED_DIRECTORIES = frozenset(
    (
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",  # noqa: S108
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/local",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/share",
        "/var",
        "/var/lib",
        "/var/log",
        "/etc/apt",
        "/etc/cron.d",
        "/etc/default",
        "/etc/nginx",
        "/etc/pam.d",
        "/etc/postgresql",
        "/etc/ssh",
        "/etc/ssl",
        "/etc/ssl/certs",
        "/etc/ssl/private",
        "/etc/systemd",
        "/etc/systemd/system",
    )
)

Phase = Literal["input", "recover", "compare", "validate", "swap", "apply", "probe", "confirm"]
OnChange = Literal["reload", "restart", "none"]
State = Literal["started", "stopped", "kept"]


class TransactionError(Exception):
    """Why the set did not take effect, written for the operator."""

    def __init__(self, message: str, *, phase: Phase, **facts: Any) -> None:
        super().__init__(message)
        self.phase: Phase = phase
        self.facts = facts


@dataclass(frozen=True)
class FileSpec:
    """A file; with a `target` it is a symbolic link instead, and has no content, owner or mode of its own."""

    path: str
    content: bytes = field(default=b"", repr=False)
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    secret: bool = False
    target: str = ""

    @property
    def kind(self) -> str:
        return "link" if self.target else "file"


@dataclass(frozen=True)
class DirectorySpec:
    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755
    owned: bool = True
    pattern: str | None = None


@dataclass(frozen=True)
class UnitSpec:
    name: str
    on_change: OnChange = "restart"
    enabled: bool | None = True
    state: State = "started"
    restart_on: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    settle: float = 1.0


@dataclass(frozen=True)
class SetSpec:
    name: str
    files: tuple[FileSpec, ...] = ()
    directories: tuple[DirectorySpec, ...] = ()
    validate: tuple[tuple[str, ...], ...] = ()
    requires: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    units: tuple[UnitSpec, ...] = ()
    probes: tuple[Mapping[str, Any], ...] = ()
    timeout: float = 60.0
    confirm_within: float = 0.0  # seconds; 0 where the change needs no confirmation
    digest: str = ""  # of the request as the controller made it; empty where it was not told

    @property
    def parents(self) -> set[str]:
        """Every folder above a listed path."""
        paths = [item.path for item in self.files] + [item.path for item in self.directories]
        return {str(parent) for path in paths for parent in PurePosixPath(path).parents}

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> SetSpec:
        """The set from the module's parameters; every mistake is reported with the option it is in."""
        name = str(params["name"])
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@-]*", name):
            raise TransactionError(
                f"name: {name!r} becomes a file name; use letters, digits and any of _ . @ -", phase="input"
            )
        files = tuple(_file(index, entry) for index, entry in enumerate(params.get("files") or ()))
        directories = tuple(_directory(index, entry) for index, entry in enumerate(params.get("directories") or ()))
        units = tuple(_unit(index, entry) for index, entry in enumerate(params.get("units") or ()))
        _unique("files", [item.path for item in files] + [item.path for item in directories])
        _unique("units", [item.name for item in units])
        return cls(
            name=name,
            files=files,
            directories=directories,
            validate=_commands("validate", params.get("validate") or ()),
            requires=tuple(_path(f"requires[{i}]", p) for i, p in enumerate(params.get("requires") or ())),
            commands=_commands("commands", params.get("commands") or ()),
            units=units,
            probes=tuple(params.get("probes") or ()),
            timeout=float(params.get("timeout") or 60),
            confirm_within=float(params.get("confirm_within") or 0),
            digest=str(params.get("digest") or ""),
        )


@dataclass(frozen=True)
class Snapshot:
    """What lies at a path. Bytes are held only of files."""

    kind: Literal["absent", "file", "symlink", "directory", "other"]
    content: bytes = field(default=b"", repr=False)
    target: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class FileChange:
    """A file or link to write (`after`), or to remove (`after` is None)."""

    path: str
    before: Snapshot
    after: FileSpec | None
    uid: int = 0
    gid: int = 0
    secret: bool = False


@dataclass(frozen=True)
class DirectoryChange:
    """A folder to make or to change (`after`), or to remove if nothing is left in it."""

    path: str
    before: Snapshot
    after: DirectorySpec | None
    uid: int = 0
    gid: int = 0


@dataclass
class Difference:
    files: list[FileChange] = field(default_factory=list)
    directories: list[DirectoryChange] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed_files(self) -> list[str]:
        return [item.path for item in self.files if item.after] + [item.path for item in self.directories if item.after]

    @property
    def removed_files(self) -> list[str]:
        return [item.path for item in self.files if not item.after] + [
            item.path for item in self.directories if not item.after
        ]

    @property
    def paths(self) -> list[str]:
        """Every file that is written or removed: what validators, units and commands have to know about."""
        return [item.path for item in self.files]

    def __bool__(self) -> bool:
        return bool(self.files or self.directories)


def _path(option: str, value: Any) -> str:
    path = str(value)
    parts = path.split("/")
    if not path.startswith("/") or path == "/" or any(part in ("", ".", "..") for part in parts[1:]):
        raise TransactionError(
            f"{option}: {path!r} is not a plain absolute path; write it from / on, without .., // and a last slash",
            phase="input",
        )
    return path


def _mode(option: str, value: Any) -> int:
    if not re.fullmatch(r"0[0-7]{3,4}", str(value)):
        raise TransactionError(
            f'{option}: {value!r} is not a mode; write it in octal, with a leading zero and in quotes: "0644"',
            phase="input",
        )
    return int(str(value), 8)


def _target(option: str, value: str) -> str:
    if not value or "\0" in value or "\n" in value:
        raise TransactionError(f"{option}: {value!r} is nothing that a link can point at; write a path", phase="input")
    return value


def unwrap(value: str) -> bytes:
    """Secret content as the controller sent it."""
    envelope = ENVELOPE.match(value)
    return base64.b64decode(envelope.group(1)) if envelope else value.encode()


def _file(index: int, entry: Mapping[str, Any]) -> FileSpec:
    path = _path(f"files[{index}].path", entry["path"])
    secret_content, content, link = (entry.get(key) for key in ("secret_content", "content", "link"))
    if sum(value is not None for value in (secret_content, content, link)) != 1:
        raise TransactionError(
            f"files[{index}] ({path}): give exactly one of template, content, secret_content and link", phase="input"
        )
    if link is not None:
        return FileSpec(path, target=_target(f"files[{index}].link ({path})", str(link)))
    return FileSpec(
        path=path,
        content=unwrap(secret_content) if secret_content is not None else str(content).encode(),
        owner=str(entry.get("owner") or "root"),
        group=str(entry.get("group") or "root"),
        mode=_mode(f"files[{index}].mode ({path})", entry.get("mode") or "0644"),
        secret=secret_content is not None or bool(entry.get("secret")),
    )


def _directory(index: int, entry: Mapping[str, Any]) -> DirectorySpec:
    path = _path(f"directories[{index}].path", entry["path"])
    owned = entry.get("owned") is not False
    pattern = entry.get("pattern")
    if owned and not pattern and path in SHARED_DIRECTORIES:
        raise TransactionError(
            f"directories[{index}]: {path} is shared with the system, all that is not listed would be removed from it; "
            "give a pattern, or owned: false",
            phase="input",
        )
    return DirectorySpec(
        path=path,
        owner=str(entry.get("owner") or "root"),
        group=str(entry.get("group") or "root"),
        mode=_mode(f"directories[{index}].mode ({path})", entry.get("mode") or "0755"),
        owned=owned,
        pattern=str(pattern) if pattern else None,
    )


def _unit(index: int, entry: Mapping[str, Any]) -> UnitSpec:
    name = str(entry["name"])
    if not re.fullmatch(r"[A-Za-z0-9:_.@\\-]+", name) or name.startswith("-"):
        raise TransactionError(f"units[{index}].name: {name!r} is not the name of a unit", phase="input")
    if not re.search(r"\.(service|socket|timer|path|mount|automount|target|slice|swap)\Z", name):
        name += ".service"
    enabled = entry.get("enabled")
    return UnitSpec(
        name=name,
        on_change=entry.get("on_change") or "restart",
        enabled=None if enabled is None else bool(enabled),
        state=entry.get("state") or "started",
        restart_on=tuple(str(item) for item in entry.get("restart_on") or ()),
        files=tuple(str(item) for item in entry.get("files") or ()),
        settle=float(1 if entry.get("settle") is None else entry["settle"]),
    )


def _commands(option: str, value: Sequence[Any]) -> tuple[tuple[str, ...], ...]:
    commands = []
    for index, argv in enumerate(value):
        if isinstance(argv, str) or not isinstance(argv, Sequence) or not argv:
            raise TransactionError(
                f"{option}[{index}]: a command is a list of its arguments, as [nginx, -t]; there is no shell",
                phase="input",
            )
        commands.append(tuple(str(item) for item in argv))
    return tuple(commands)


def _unique(option: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TransactionError(
            f"{option}: listed more than once: {', '.join(twice)}; keep one entry of each", phase="input"
        )
