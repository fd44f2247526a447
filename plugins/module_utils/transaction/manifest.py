# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a set manages on a host, written down there: how the next run knows what is to go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import (
    DirectorySpec,
    FileSpec,
    OnChange,
    SetSpec,
    State,
    TransactionError,
)

FOLDER = "/var/lib/selfhost/config"
VERSION = 1


@dataclass(frozen=True)
class ManagedUnit:
    """What a set wanted of a unit. The defaults are those of `config_set`, and hold where only its name was kept."""

    name: str
    state: State = "started"
    enabled: bool | None = True
    on_change: OnChange = "restart"

    @classmethod
    def read(cls, entry: Any) -> ManagedUnit:
        """The first releases wrote the name alone."""
        return cls(entry) if isinstance(entry, str) else cls(**entry)


@dataclass(frozen=True)
class Manifest:
    """Paths with their digests, or where they point; `secret` are the paths whose bytes must not be shown, `made` the folders made by us.

    `digest` is that of the request, and `folders` are the `directories` as it had them.
    """

    name: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    units: tuple[ManagedUnit, ...] = ()
    digest: str = ""
    folders: tuple[DirectorySpec, ...] = ()

    @classmethod
    def of(cls, spec: SetSpec, *, made: Iterable[str] = ()) -> Manifest:
        directories = tuple(sorted(item.path for item in spec.directories))
        parents = spec.parents
        return cls(
            name=spec.name,
            files={item.path: _facts(item) for item in sorted(spec.files, key=lambda entry: entry.path)},
            directories=directories,
            made=tuple(sorted(set(made) & (set(directories) | parents))),
            units=tuple(
                ManagedUnit(item.name, item.state, item.enabled, item.on_change)
                for item in sorted(spec.units, key=lambda unit: unit.name)
            ),
            digest=spec.digest,
            folders=tuple(sorted(spec.directories, key=lambda item: item.path)),
        )

    @classmethod
    def load(cls, path: Path) -> Manifest | None:
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise TransactionError(
                f"{path}: the manifest of what is managed cannot be read ({error}); mend or remove it, "
                "the next run writes it anew (files no longer listed then stay)",
                phase="compare",
            ) from None
        if data.get("version") != VERSION:
            raise TransactionError(
                f"{path}: version {data.get('version')!r} of the manifest is not known; "
                "it was written by another release of the collection: use that one, or newer",
                phase="compare",
            )
        return cls(
            name=str(data["name"]),
            files={
                str(item["path"]): {key: value for key, value in item.items() if key != "path"}
                for item in data["files"]
            },
            directories=tuple(data["directories"]),
            made=tuple(data["made"]),
            units=tuple(ManagedUnit.read(item) for item in data["units"]),
            digest=str(data.get("digest", "")),
            folders=tuple(DirectorySpec(**item) for item in data.get("folders", ())),
        )

    def serialize(self) -> bytes:
        data = {
            "version": VERSION,
            "name": self.name,
            "files": [{"path": path, **facts} for path, facts in sorted(self.files.items())],
            "directories": self.directories,
            "made": self.made,
            "units": [asdict(item) for item in self.units],
            "digest": self.digest,
            "folders": [asdict(item) for item in self.folders],
        }
        return (json.dumps(data, indent=1) + "\n").encode()


def _facts(item: FileSpec) -> dict[str, Any]:
    if item.target:
        return {"link": item.target}
    return {
        "sha256": hashlib.sha256(item.content).hexdigest(),
        "mode": f"{item.mode:04o}",
        "owner": item.owner,
        "group": item.group,
        "secret": item.secret,
    }


def manifest_path(name: str) -> str:
    return f"{FOLDER}/{name}.json"


def recorded(root: Path) -> list[str]:
    """Names of all sets that are managed on the host."""
    return sorted(path.stem for path in (root / FOLDER.lstrip("/")).glob("*.json"))


def others(root: Path, name: str, gone: Collection[str] = ()) -> list[Manifest]:
    """What all other sets manage. Those in `gone` no longer count: in check mode they are still recorded."""
    found = []
    for other in recorded(root):
        if other != name and other not in gone:
            manifest = Manifest.load(root / manifest_path(other).lstrip("/"))
            found += [manifest] if manifest else []
    return found


def claimed_by_others(root: Path, name: str, gone: Collection[str] = ()) -> dict[str, str]:
    """Files that other sets manage, with the set's name. Such a file is never removed from here."""
    return {file: manifest.name for manifest in others(root, name, gone) for file in manifest.files}
