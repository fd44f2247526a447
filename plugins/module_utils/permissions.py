# GNU General Public License v3.0+ (see LICENSE)
"""Owners and modes that are other than a package brings them: as overrides that dpkg keeps to when it upgrades the package."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .commands import Runner

# What was there before, by path: an override that is taken away gives it back, which dpkg alone would not.
RECORD = Path("/var/lib/selfhost/permissions.json")


class PermissionsError(Exception):
    """An override that dpkg did not take, in its words."""


@dataclass(frozen=True)
class Rights:
    owner: str
    group: str
    mode: str

    def __str__(self) -> str:
        return f"{self.owner}:{self.group} {self.mode}"


@dataclass
class Outcome:
    """`before` and `after` by path; None is what the package brings. `left` are overrides that somebody else made."""

    before: dict[str, Rights | None] = field(default_factory=dict)
    after: dict[str, Rights | None] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.after)


class Overrides:
    """Those of this collection among dpkg's. A path that is not there yet is overridden as well: its package may come."""

    def __init__(self, runner: Runner, *, root: Path = Path("/"), record: Path = RECORD) -> None:
        self.runner = runner
        self.root = root
        self.record = root / record.relative_to("/")

    def apply(self, wanted: Mapping[str, Rights], *, check: bool) -> Outcome:
        """Make exactly the wanted ones hold, and take away those made before that are wanted no more."""
        there, made, outcome = self._there(), self._recorded(), Outcome()
        for path, rights in wanted.items():
            if path in there and path not in made and there[path] != rights:
                outcome.left.append(f"{path} ({there[path]})")
            elif there.get(path) != rights or self._live(path) not in (None, rights):
                outcome.before[path], outcome.after[path] = there.get(path), rights
        gone = [path for path in made if path not in wanted]
        outcome.before |= {path: there.get(path) for path in gone}
        outcome.after |= dict.fromkeys(gone)
        if check:
            return outcome
        for path, after in outcome.after.items():
            if after is None:
                self._remove(path, there, made)
            else:
                self._add(path, after, there, made)
        return outcome

    def _add(self, path: str, rights: Rights, there: Mapping[str, Rights], made: dict[str, Rights | None]) -> None:
        # Noted before it is done: a run that ends in between still knows what to give back.
        made.setdefault(path, self._live(path))
        self._note(made)
        if path in there:
            self._dpkg("--remove", path)
        update = ["--update"] if self._live(path) else []
        self._dpkg(*update, "--add", rights.owner, rights.group, rights.mode, path)

    def _remove(self, path: str, there: Mapping[str, Rights], made: dict[str, Rights | None]) -> None:
        former = made[path]
        if path in there:
            if former and self._live(path):
                # dpkg itself gives nothing back. Added once more with the former rights, it sets them.
                self._dpkg("--remove", path)
                self._dpkg("--update", "--add", former.owner, former.group, former.mode, path)
            self._dpkg("--remove", path)
        del made[path]
        self._note(made)

    def _there(self) -> dict[str, Rights]:
        result = self.runner.run(["dpkg-statoverride", "--list"])
        rows = (line.split(maxsplit=3) for line in result.stdout.splitlines())
        return {path: Rights(owner, group, _four(mode)) for owner, group, mode, path in rows}

    def _live(self, path: str) -> Rights | None:
        """What lies at the path now; None where nothing does."""
        place = self.root / path.lstrip("/")
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            return None
        return Rights(place.owner(), place.group(), f"{stat.S_IMODE(found.st_mode):04o}")

    def _dpkg(self, *arguments: str) -> None:
        result = self.runner.run(["dpkg-statoverride", *arguments])
        if not result.ok:
            raise PermissionsError(
                f"dpkg-statoverride {' '.join(arguments)} failed. It says:\n{result.words()}\n"
                "Run again when that is mended; the overrides before it hold already."
            )

    def _recorded(self) -> dict[str, Rights | None]:
        if not self.record.exists():
            return {}
        noted = json.loads(self.record.read_text())
        return {path: Rights(**former) if former else None for path, former in noted.items()}

    def _note(self, made: Mapping[str, Rights | None]) -> None:
        self.record.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        text = json.dumps({path: asdict(former) if former else None for path, former in made.items()}, indent=1)
        new = self.record.with_suffix(".new")
        new.write_text(f"{text}\n")
        new.replace(self.record)


def wanted(entries: Iterable[Mapping[str, Any]]) -> dict[str, Rights]:
    """The module's parameter by path."""
    return {
        str(entry["path"]): Rights(str(entry["owner"]), str(entry["group"]), _four(str(entry["mode"])))
        for entry in entries
    }


def _four(mode: str) -> str:
    """dpkg lists modes without leading zeros."""
    return f"{int(mode, 8):04o}"
