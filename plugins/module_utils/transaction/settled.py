# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets for which nothing is to be done where a run asks for the same as the one before: all of a host, in one look."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import Runner
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.compare import real, snapshot
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.engine import Transaction
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import Journal
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.manifest import (
    Manifest,
    manifest_path,
    recorded,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import (
    FileSpec,
    SetSpec,
    TransactionError,
    UnitSpec,
    unwrap,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.prune import Nothing
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.units import Units

MEANING = 1  # raised when the same request comes to mean another state of a host


def digest(request: Mapping[str, Any]) -> str:
    """Of all that a run asks of a set: the parameters of the module, as the controller sends them."""
    files = [
        {**entry, "secret_content": hashlib.sha256(unwrap(entry["secret_content"])).hexdigest()}
        if "secret_content" in entry
        else entry
        for entry in request.get("files") or ()
    ]
    text = json.dumps([MEANING, {**request, "files": files}], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def settled(root: Path, runner: Runner, *, timeout: float, units: Units | None = None) -> dict[str, str]:
    """The digests of what was asked for, by set; of those where a transaction would find nothing to do. Reads only.

    A set that is left out is no mistake: its own transaction then looks, and says what it finds.
    """
    if Journal.interrupted(root):
        return {}
    found = {}
    for name in recorded(root):
        try:
            manifest = Manifest.load(real(root, manifest_path(name)))
            if manifest and manifest.digest and _is_settled(root, runner, manifest, timeout, units):
                found[name] = manifest.digest
        except TransactionError:
            continue
    return found


def _is_settled(root: Path, runner: Runner, manifest: Manifest, timeout: float, units: Units | None) -> bool:
    files = [_as_asked(root, path, facts) for path, facts in manifest.files.items()]
    if None in files:
        return False
    spec = SetSpec(
        manifest.name,
        files=tuple(item for item in files if item),
        directories=manifest.folders,
        units=tuple(UnitSpec(unit.name, unit.on_change, unit.enabled, unit.state) for unit in manifest.units),
        timeout=timeout,
    )
    transaction = Transaction(
        spec, runner=runner, sandbox=Nothing(), prober=lambda _options: (True, ""), root=root, units=units
    )
    return transaction.has_nothing_to_do()


def _as_asked(root: Path, path: str, facts: Mapping[str, Any]) -> FileSpec | None:
    """None where the bytes, or where a link points, are no longer those that were asked for."""
    there = snapshot(real(root, path))
    if "link" in facts:
        return (
            FileSpec(path, target=facts["link"]) if (there.kind, there.target) == ("symlink", facts["link"]) else None
        )
    if there.kind != "file" or hashlib.sha256(there.content).hexdigest() != facts["sha256"]:
        return None
    return FileSpec(path, there.content, facts["owner"], facts["group"], int(facts["mode"], 8), facts["secret"])
