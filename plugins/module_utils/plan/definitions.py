# GNU General Public License v3.0+ (see LICENSE)
"""Definitions: files that say all about a service, found, validated and merged for one version."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import versions
from .findings import Findings
from .model import Data
from .schema import schema_findings

MERGED = ("components", "routes", "body_limit", "connections_per_client", "headers", "database", "secrets")


def merge(base: Any, over: Any) -> Any:
    """`over` laid over `base`: mappings key by key, anything else as a whole; a None takes a key away."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged[key], value) if key in merged else value
    return merged


class Definitions:
    """All definitions of some folders; a later folder's stands before an earlier one's."""

    def __init__(self, folders: Iterable[Path], schema: Path) -> None:
        self.schema: Data = json.loads(schema.read_text())
        self._kept: dict[str, Data] = {}  # several plans of a run are computed from the same
        self.files = {path.stem: path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yml"))}

    def names(self) -> list[str]:
        return sorted(self.files)

    def load(self, name: str, findings: Findings) -> Data | None:
        """A definition that keeps to the schema, or None with the findings that say why not."""
        import yaml  # on controllers, by which Ansible does not judge module_utils

        if name in self._kept:
            return copy.deepcopy(self._kept[name])
        path = self.files.get(name)
        if path is None:
            findings.add(
                f"fleet_services.{name}",
                f"there is no definition of a service {name}",
                f"Known are: {', '.join(self.names())}. A definition of your own is services/{name}.yml beside the inventory",
            )
            return None
        try:
            # As Ansible does: libyaml, where it is there, reads ten times as fast.
            document = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        except (yaml.YAMLError, OSError) as error:
            findings.add(
                f"services/{path.name}", f"cannot be read: {str(error).replace(chr(10), ' ')}", "Mend the file"
            )
            return None
        mine = Findings()
        schema_findings(self.schema, document, f"services/{path.name}", mine)
        if not mine:
            for number, contract in enumerate(document["contracts"]):
                if not versions.is_range(contract["versions"]):
                    mine.add(
                        f"services/{path.name}.contracts.{number}.versions",
                        f"{contract['versions']} is no range",
                        "Write it as >=1.2,<2",
                    )
            if document["name"] != name:
                mine.add(
                    f"services/{path.name}.name", f"is {document['name']}", f"Make it {name}, as the file is called"
                )
        for finding in mine.items:
            findings.add(finding.variable, finding.problem, finding.remedy)
        if mine:
            return None
        self._kept[name] = document
        return copy.deepcopy(self._kept[name])


def contract(definition: Data, version: str) -> Data | None:
    """The definition as it is for a version, or None where no contract covers it."""
    only = len(definition["contracts"]) == 1
    for entry in definition["contracts"]:
        # Which version a distribution has is not known here: where that would choose between contracts, it has to be named.
        if versions.covers(entry["versions"], version) or (only and version == versions.DISTRIBUTION):
            base = {key: definition[key] for key in MERGED if key in definition}
            over = {key: entry[key] for key in MERGED if key in entry}
            merged: Data = merge(base, over)
            return merged
    return None
