# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of it, for the module and its user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .model import Place, sentence


@dataclass(frozen=True, kw_only=True)
class Outcome:
    wanted: Place
    needed: bool = False
    installed: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    said: str | None = None

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def as_result(self) -> dict[str, Any]:
        return {
            "changed": self.changed,
            "needed": self.needed,
            "installed": self.installed,
            "version": self.wanted.version,
            "directory": str(self.wanted.path),
            "executable": str(self.wanted.path / self.wanted.executable),
            "releases": self.after.get("releases", []),
            "links": self.after.get("links", {}),
            "removed": list(self.removed),
            "program_says": self.said,
        }

    def warnings(self) -> list[str]:
        if not self.unsure:
            return []
        return [
            f"No old release below {self.wanted.root} was removed: the process {sentence(self.unsure)} was started "
            "through a link that points elsewhere by now, so its release cannot be told. Restart it."
        ]

    def diff(self) -> dict[str, str]:
        header = str(self.wanted.root)
        return {
            "before_header": header,
            "after_header": header,
            "before": _listing(self.before),
            "after": _listing(self.after),
        }


def _listing(state: dict[str, Any]) -> str:
    lines = [f"release {version}" for version in state.get("releases", [])]
    lines += [f"link {name} -> {version}" for name, version in state.get("links", {}).items()]
    return "".join(f"{line}\n" for line in lines)
