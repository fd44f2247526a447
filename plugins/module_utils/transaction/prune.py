# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets that a host no longer has: each is taken away as a transaction of its own."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult, Runner
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.compare import real
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.engine import Transaction
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import Journal
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.lock import host_lock
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.manifest import (
    ManagedUnit,
    Manifest,
    manifest_path,
    others,
    recorded,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import (
    Difference,
    SetSpec,
    TransactionError,
    UnitSpec,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.recover import Recovery, foretold
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.units import UnitPlan, Units, UnitState

# Sets whose units hold data that exists nowhere else, with what starts them at boot. A host may have left its group by
# a slip of the pen.
PROTECTED = {"postgres": "postgresql.service"}

# To stop these takes away the way to the host, or the host itself. They take up what is left, and run on.
ESSENTIAL = (
    "systemd-*",
    "dbus*",
    "ssh.*",
    "ssh@*",
    "sshd*",
    "getty@*",
    "networking.service",
    "NetworkManager.service",
    "*.target",
    "*.slice",
)


@dataclass
class Pruned:
    changed: bool = False
    pruned: list[str] = field(default_factory=list)
    protected: list[str] = field(default_factory=list)
    removed_files: list[str] = field(default_factory=list)
    units: dict[str, list[str]] = field(default_factory=dict)
    recovered: list[str] = field(default_factory=list)
    diff: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Removal(Transaction):
    """A set with nothing in it any more, which is then forgotten. `gone` are the sets that went before it."""

    failure = "was not taken away"

    def __init__(
        self,
        name: str,
        *,
        runner: Runner,
        timeout: float,
        root: Path = Path("/"),
        units: Units | None = None,
        gone: Collection[str] = (),
    ) -> None:
        super().__init__(
            SetSpec(name, timeout=timeout),
            runner=runner,
            sandbox=Nothing(),
            prober=lambda _options: (True, ""),
            root=root,
            units=units,
            gone=gone,
        )

    def _manifest(self, _made: set[str]) -> bytes | None:
        return None

    def _plan_units(self, difference: Difference, former: Manifest | None) -> tuple[list[UnitPlan], list[UnitPlan]]:
        going, _plans = super()._plan_units(difference, former)
        taken = {plan.name for plan in going}
        managed = {unit.name: unit for unit in (former.units if former else ()) if unit.name not in taken}
        if not managed:
            return going, []
        if not self.runner.which("systemctl"):
            difference.problems.append("systemctl is not installed on this host: units cannot be looked at")
            return [], []
        states = {name: state for name, state in self.units.states(list(managed)).items() if state.known}
        needed = {unit.name for other in others(self.root, self.spec.name, self.gone) for unit in other.units}
        staying = {name for name in states if name in needed or _matches(name, ESSENTIAL)}
        stopping = [_stopped(managed[name], state) for name, state in states.items() if name not in staying]
        specs = [UnitSpec(name, managed[name].on_change, enabled=None, state="kept") for name in sorted(staying)]
        return going + [plan for plan in stopping if plan.steps], self.units.plan(specs, states, difference.paths)


def _stopped(unit: ManagedUnit, state: UnitState) -> UnitPlan:
    """What the set brought about is undone; a unit that it wanted stopped, or never touched, stays as it is."""
    steps = ["stop"] if unit.state == "started" and state.active else []
    if (unit.state == "started" or unit.enabled) and state.switchable and state.enabled:
        steps.append("disable")
    return UnitPlan(unit.name, steps, state)


class Prune:
    """All sets of a host that are not to be kept. What is done is in `outcome`, also after a failure."""

    def __init__(
        self,
        *,
        keep: Collection[str],
        among: Sequence[str] | None = None,
        runner: Runner,
        timeout: float,
        root: Path = Path("/"),
        units: Units | None = None,
    ) -> None:
        self.keep = keep
        self.among = among
        self.runner = runner
        self.timeout = timeout
        self.root = root
        self.units = units or Units(runner, timeout=timeout)
        self.outcome = Pruned()

    def run(self, *, check: bool) -> Pruned:
        if check:
            self.outcome.warnings += foretold(self.root)
        elif Journal.interrupted(self.root):
            # A removal that was killed may have forgotten its set already: that one is listed only after the way back.
            with host_lock(self.root, "config_prune", self.timeout):
                self.outcome.recovered = Recovery(self.root, self.runner, self.units, self.timeout).all()
        self.outcome.changed = bool(self.outcome.warnings or self.outcome.recovered)
        for name in self._unwanted():
            if name in PROTECTED:
                self._protect(name)
            else:
                self._remove(name, check=check)
        return self.outcome

    def _unwanted(self) -> list[str]:
        names = [name for name in recorded(self.root) if name not in self.keep]
        if self.among is None:
            return names
        return [name for pattern in reversed(self.among) for name in names if fnmatch.fnmatchcase(name, pattern)]

    def _protect(self, name: str) -> None:
        path = manifest_path(name)
        manifest = Manifest.load(real(self.root, path))
        units = " ".join([PROTECTED[name], *(unit.name for unit in (manifest.units if manifest else ()))])
        self.outcome.protected.append(name)
        self.outcome.warnings.append(
            f"The set {name} is no longer to be on this host, but its data may exist nowhere else: it runs on, and nothing "
            "of it was changed. If it is still needed, put the host back into its group. If its data has moved "
            f"and the copy has been proven, retire it by hand: systemctl disable --now {units}; then remove the files "
            f"listed in {path}, and that file"
        )

    def _remove(self, name: str, *, check: bool) -> None:
        removal = Removal(
            name,
            runner=self.runner,
            timeout=self.timeout,
            root=self.root,
            units=self.units,
            gone=self.outcome.pruned,
        )
        try:
            done = removal.run(check=check)
        except TransactionError as error:
            error.facts["set"] = name
            raise
        total = self.outcome
        total.changed = True
        total.pruned.append(name)
        total.removed_files += done.removed_files
        for unit, steps in done.units.items():
            total.units[unit] = total.units.get(unit, []) + steps
        total.recovered += done.recovered
        total.diff += [_forgotten(name), *done.diff]
        total.warnings += [warning for warning in done.warnings if warning not in total.warnings]


def _forgotten(name: str) -> dict[str, Any]:
    return {"before_header": name, "after_header": name, "before": "set: managed\n", "after": "set: gone\n"}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class Nothing:
    """A set that goes has no candidate to validate."""

    def validate(
        self, _difference: Difference, _commands: Sequence[Sequence[str]], _timeout: float
    ) -> list[CommandResult]:
        return []
