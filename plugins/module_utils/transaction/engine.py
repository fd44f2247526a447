# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The course of a transaction: compare, validate, swap, apply, probe; and back from wherever it fails."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import Runner
from ansible_collections.selfhost.fleet.plugins.module_utils.storage import trouble
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.compare import Comparer, diffs, real
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import (
    Journal,
    UnitEntry,
    make_private,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.lock import host_lock
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.manifest import (
    FOLDER,
    Manifest,
    claimed_by_others,
    manifest_path,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import (
    Difference,
    SetSpec,
    TransactionError,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.recover import Recovery, foretold
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.redact import Redactor
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.swap import swap
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.units import (
    UnitPlan,
    Units,
    belongs,
    needs_daemon_reload,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.validate import Sandbox
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.way_back import WayBack

# A probe's options to (whether it holds, in its own words).
Prober = Callable[[Mapping[str, Any]], tuple[bool, str]]
# A probe's options to (address, control group) of a stranger who listens where the probe's unit is to.
Holder = Callable[[Mapping[str, Any]], "tuple[str, str] | None"]


@dataclass
class Outcome:
    changed: bool = False
    pending: bool = False
    change: str = ""  # what a pending one is confirmed or taken back by
    changed_files: list[str] = field(default_factory=list)
    removed_files: list[str] = field(default_factory=list)
    validated: bool | None = None
    units: dict[str, list[str]] = field(default_factory=dict)
    recovered: list[str] = field(default_factory=list)
    diff: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    timings_ms: dict[str, int] = field(default_factory=dict)


@dataclass
class _Work:
    """What a run has found out, on its way through the phases."""

    difference: Difference
    manifest: bytes | None  # None where the set itself goes
    former: bytes | None
    plans: list[UnitPlan]
    going: list[UnitPlan]
    redact: Redactor

    def __bool__(self) -> bool:
        return bool(self.difference or self.plans or self.going or self.manifest is None)


class Transaction:
    """One run of a set on a host. Whatever it touches comes in from outside, so that tests need no host."""

    failure = "did not take effect"

    def __init__(
        self,
        spec: SetSpec,
        *,
        runner: Runner,
        sandbox: Sandbox,
        prober: Prober,
        holder: Holder = lambda _options: None,
        root: Path = Path("/"),
        units: Units | None = None,
        gone: Collection[str] = (),
        way_back: WayBack | None = None,
    ) -> None:
        self.spec = spec
        self.runner = runner
        self.sandbox = sandbox
        self.prober = prober
        self.holder = holder
        self.root = root
        self.gone = gone
        self.way_back = way_back or WayBack(spec.name, runner)
        self.units = units or Units(runner, timeout=spec.timeout)
        self.recovery = Recovery(root, runner, self.units, spec.timeout)
        self.outcome = Outcome()

    def run(self, *, check: bool) -> Outcome:
        started = time.monotonic()
        try:
            if check:
                self._check()
            else:
                with host_lock(self.root, self.spec.name, self.spec.timeout):
                    self._run()
        except TransactionError as error:
            error.facts.setdefault("recovered", self.outcome.recovered)
            raise
        finally:
            self.outcome.warnings += self.units.warnings
            self.units.warnings.clear()
            self.outcome.timings_ms["total"] = int((time.monotonic() - started) * 1000)
        return self.outcome

    def has_nothing_to_do(self) -> bool:
        """Whether a run would leave the host as it is, without a word. Reads only."""
        work = self._compare()
        return not (work or work.difference.problems or work.difference.warnings)

    def confirm(self, change: str) -> Outcome:
        """Keep a change that waits for it.

        Only whoever made it has proven that it lets them in: a run that was killed may leave a process behind that comes
        back when another run's change waits here.
        """
        with host_lock(self.root, self.spec.name, self.spec.timeout):
            journal = self._waiting()
            if journal is None or journal.change != change:
                end = "that of another run waits now" if journal else "the former state is in force"
                raise TransactionError(
                    f"{self.spec.name} was taken back before it was confirmed; {end}",
                    phase="confirm",
                    rolled_back=True,
                )
            journal.save("committed")
            journal.remove()
            self.outcome.warnings += self.way_back.disarm()
        self.outcome.changed = True
        return self.outcome

    def take_back(self, change: str) -> Outcome:
        """Undo a change that waits to be confirmed, before its time is over. That of another run is left to it."""
        with host_lock(self.root, self.spec.name, self.spec.timeout):
            journal = self._waiting()
            if journal is not None and journal.change != change:
                return self.outcome
            self.outcome.recovered = self.recovery.all()
            self.outcome.warnings += self.way_back.disarm()
        return self.outcome

    def _waiting(self) -> Journal | None:
        """What waits to be confirmed, if anything does."""
        journal = Journal.load(self.root, self.spec.name)
        return journal if journal is not None and journal.stage == "pending" else None

    # -- the two courses

    def _check(self) -> None:
        interrupted = foretold(self.root)
        self.outcome.warnings += interrupted
        work = self._compare()
        self.outcome.warnings += work.difference.problems
        # What could not be looked at on a host that is not there yet is said, not guessed.
        self._validate(work, check=True)
        self.outcome.changed = bool(work) or bool(interrupted)

    def _run(self) -> None:
        with self._timed("recover"):
            self.outcome.recovered = self.recovery.all()
        work = self._compare()
        if work.difference.problems:
            raise TransactionError("\n".join(work.difference.problems), phase="compare")
        self.outcome.changed = bool(work) or bool(self.outcome.recovered)
        if not work and work.manifest == work.former:
            return
        self._validate(work, check=False)
        self._take_effect(work)

    def _compare(self) -> _Work:
        spec = self.spec
        with self._timed("compare"):
            path = real(self.root, manifest_path(spec.name))
            former = Manifest.load(path)
            claimed = claimed_by_others(self.root, spec.name, self.gone)
            try:
                difference = Comparer(self.root, spec, former, claimed).compare()
            except OSError as error:
                raise TransactionError(trouble(error), phase="compare") from None
            made = {item.path for item in difference.directories if item.after and item.before.kind == "absent"}
            made |= set(former.made if former else ())
            going, plans = self._plan_units(difference, former)
            difference.problems += self._taken_ports([*going, *plans])
        secret = [item.content for item in spec.files if item.secret]
        secret += [item.before.content for item in difference.files if item.secret]
        self.outcome.changed_files = difference.changed_files
        self.outcome.removed_files = difference.removed_files
        self.outcome.diff = diffs(difference) + _unit_diffs([*going, *plans])
        self.outcome.warnings += difference.warnings
        self.outcome.units = {plan.name: plan.steps for plan in [*going, *plans]}
        return _Work(
            difference=difference,
            manifest=self._manifest(made),
            former=path.read_bytes() if former else None,
            plans=plans,
            going=going,
            redact=Redactor(secret, known=self._known()),
        )

    def _known(self) -> list[str]:
        """What messages name, secret or not."""
        probed = [str(value) for options in self.spec.probes for value in options.values()]
        return [*(item.path for item in self.spec.files), *(item.name for item in self.spec.units), *probed]

    def _manifest(self, made: set[str]) -> bytes | None:
        return Manifest.of(self.spec, made=made).serialize()

    def _plan_units(self, difference: Difference, _former: Manifest | None) -> tuple[list[UnitPlan], list[UnitPlan]]:
        """Units that are taken down before the swap, and what the others do after it."""
        names = [item.name for item in self.spec.units]
        removed = [item.path for item in difference.files if not item.after]
        if not names and not any(needs_daemon_reload([path]) for path in removed):
            return [], []
        if not self.runner.which("systemctl"):
            difference.problems.append("systemctl is not installed on this host: units cannot be looked at")
            return [], []
        states = self.units.states(names)
        coming = [item.path for item in self.spec.files]
        up = {item.name for item in self.spec.units if item.enabled or item.state != "stopped"}
        for name, state in states.items():
            if name in up and not state.known and not any(belongs(path, name) for path in coming):
                difference.problems.append(
                    f"units: there is no {name} on this host; install what brings it before, or list its file in files"
                )
        return self.units.going(removed), self.units.plan(self.spec.units, states, difference.paths)

    def _taken_ports(self, plans: list[UnitPlan]) -> list[str]:
        """A service that finds its port taken may only log it: by then it would be away from its former port."""
        ours = {_whole(plan.name) for plan in plans}
        starting = {_whole(plan.name) for plan in plans if {"start", "restart"} & set(plan.steps)}
        found = []
        for options in self.spec.probes:
            name = _whole(str(options.get("unit") or ""))
            held = self.holder(options) if name in starting else None
            # A unit of this set lets go of its port when it is restarted or stopped.
            if held and not ours & set(held[1].split("/")):
                found.append(
                    f"{held[0]}, where {name} is to listen, is held by {held[1]}. Nothing was changed. Stop that "
                    "(systemctl status names it), or give one of the two another port, then run again"
                )
        return found

    # -- validate

    def _validate(self, work: _Work, *, check: bool) -> None:
        if not self.spec.validate or not work.difference:
            return
        missing = [f"{argv[0]} is not installed" for argv in self.spec.validate if not self.runner.which(argv[0])]
        coming = {item.path for item in self.spec.files} | {item.path for item in self.spec.directories}
        missing += [
            f"{path} does not exist"
            for path in self.spec.requires
            if path not in coming and not real(self.root, path).exists()
        ]
        if missing and not check:
            raise TransactionError(
                f"The candidate cannot be validated: {'; '.join(missing)}. Nothing was changed. "
                "Install it, or make it, in a task before this one",
                phase="validate",
            )
        if missing:
            self.outcome.validated = False
            self.outcome.warnings.append(f"Not validated: {'; '.join(missing)} (yet)")
            return
        with self._timed("validate"):
            results = self.sandbox.validate(work.difference, self.spec.validate, self.spec.timeout)
        for result in results:
            if not result.ok:
                paths = ", ".join(work.difference.paths) or "only folders differ"
                raise TransactionError(
                    f"{' '.join(result.argv)} rejects the candidate of {self.spec.name} ({paths}); "
                    f"nothing was changed. It says:\n{work.redact(result.words())}",
                    phase="validate",
                    diff=self.outcome.diff,
                    rolled_back=False,
                )
        self.outcome.validated = True

    # -- take effect, or not at all

    def _take_effect(self, work: _Work) -> None:
        spec, difference = self.spec, work.difference
        make_private(real(self.root, FOLDER))
        reload = needs_daemon_reload(difference.paths)
        journal = Journal(self.root, spec.name, daemon_reload=reload, change=secrets.token_hex(4))
        journal.commands = [list(argv) for argv in spec.commands] if difference else []
        journal.units = self._unit_entries(work)
        try:
            with self._timed("swap"):
                journal.begin(difference, manifest_path(spec.name))
                waits = bool(work) and spec.confirm_within > 0
                if waits:
                    self.way_back.arm(journal.folder, spec.confirm_within)
                if work.going:
                    journal.save("applying")
                    for entry in journal.units:
                        entry.touched = any(entry.name == plan.name for plan in work.going)
                    self.units.take_down(work.going)
                swap(self.root, difference, journal, work.manifest)
            if work:
                with self._timed("apply"):
                    self._apply(work, journal)
                with self._timed("probe"):
                    self._probe()
            journal.save("pending" if waits else "committed")
        except BaseException as error:
            self._undo(work, journal, error)
            raise
        if waits:
            self.outcome.pending, self.outcome.change = True, journal.change
        else:
            journal.remove()

    def _unit_entries(self, work: _Work) -> list[UnitEntry]:
        entries = []
        for plan in work.going:
            state = plan.state
            entries.append(UnitEntry(plan.name, state.active, state.enabled if state.switchable else None, "start"))
        for plan in work.plans:
            state = plan.state
            enabled = state.enabled if {"enable", "disable"} & set(plan.steps) else None
            action = "reload" if "reload" in plan.steps else "restart" if "restart" in plan.steps else "start"
            entries.append(UnitEntry(plan.name, state.active, enabled, action))
        return entries

    def _apply(self, work: _Work, journal: Journal) -> None:
        journal.save("applying")
        if journal.daemon_reload:
            result = self.units.daemon_reload()
            if not result.ok:
                raise TransactionError(f"systemctl daemon-reload: {result.words()}", phase="apply")
        for argv in journal.commands:
            result = self.runner.run(argv, timeout=self.spec.timeout)
            if not result.ok:
                raise TransactionError(f"{' '.join(argv)} failed. It says:\n{result.words()}", phase="apply")
        entries = {entry.name: entry for entry in journal.units}
        for plan in work.plans:
            entries[plan.name].touched = True
            self.units.act(plan)
        self.units.settle(work.plans)

    def _probe(self) -> None:
        for options in self.spec.probes:
            good, message = self.prober(options)
            if not good:
                raise TransactionError(f"The probe does not hold: {message}", phase="probe")

    def _undo(self, work: _Work, journal: Journal, error: BaseException) -> None:
        """Everything back as it was. What cannot be brought back stays in the journal for the next run, and is said."""
        facts: dict[str, Any] = {"rolled_back": True, "diff": self.outcome.diff}
        try:
            with self._timed("roll_back"):
                left = self.recovery.back(journal, touched_only=True)
        except OSError as problem:
            left, facts["rolled_back"] = [], False
            end = f"The former state could NOT be brought back ({trouble(problem)}); the next run tries again"
        else:
            end = "The former files and running state are back."
            if left:
                end = f"The former files are back, but not all of the running state:\n{work.redact(chr(10).join(left))}"
            elif not isinstance(error, TransactionError) or error.phase in ("apply", "probe"):
                end += self._probe_former(journal)
        if self.spec.confirm_within:
            self.outcome.warnings += self.way_back.disarm()
        if isinstance(error, TransactionError):
            paths = ", ".join(work.difference.paths)
            where = f"{self.spec.name} ({paths})" if paths else self.spec.name
            raise TransactionError(
                f"{where} {self.failure}. {work.redact(str(error))}\n{end}",
                phase=error.phase,
                **{**error.facts, **facts},
            ) from None
        if isinstance(error, OSError):
            raise TransactionError(
                f"{self.spec.name} {self.failure}. {trouble(error)}.\n{end}", phase="swap", **facts
            ) from None

    def _probe_former(self, journal: Journal) -> str:
        """A way back is probed like the way there; but for what did not run before."""
        down = {entry.name for entry in journal.units if not entry.active}
        probes = [options for options in self.spec.probes if _whole(str(options.get("unit") or "")) not in down]
        for options in probes:
            good, message = self.prober(options)
            if not good:
                return f" The probe does not hold with them either: {message}"
        return " The probe holds with them." if probes else ""

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.outcome.timings_ms[phase] = int((time.monotonic() - started) * 1000)


def _whole(unit: str) -> str:
    """A name without a type is a service's, as systemctl has it."""
    return unit if not unit or unit.rpartition(".")[2] in ("service", "socket", "timer", "path") else f"{unit}.service"


def _unit_diffs(plans: Sequence[UnitPlan]) -> list[dict[str, Any]]:
    """Units whose lasting state changes; that a running one takes up its files is no difference of state."""
    result = []
    for plan in plans:
        before, after = [], []
        if plan.gone:
            before.append("unit: there\n")
            after.append("unit: removed\n")
        elif {"enable", "disable"} & set(plan.steps):
            before.append(f"enabled: {str(plan.state.enabled).lower()}\n")
            after.append(f"enabled: {str('enable' in plan.steps).lower()}\n")
        if not plan.gone and {"start", "stop"} & set(plan.steps):
            before.append(f"state: {plan.state.facts.get('ActiveState') or 'absent'}\n")
            after.append(f"state: {'active' if 'start' in plan.steps else 'inactive'}\n")
        if before:
            result.append(
                {
                    "before_header": plan.name,
                    "after_header": plan.name,
                    "before": "".join(before),
                    "after": "".join(after),
                }
            )
    return result
