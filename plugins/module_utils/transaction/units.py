# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The units' part: what systemd says of them, what is to be done, doing it, and the way back."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult, Runner
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import UnitEntry
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError, UnitSpec
from ansible_collections.selfhost.fleet.plugins.module_utils.unit_journal import unit_journal

UNIT_FOLDERS = ("/etc/systemd/", "/usr/local/lib/systemd/", "/usr/lib/systemd/", "/lib/systemd/", "/run/systemd/")
_UNIT_FILE = re.compile(r"/systemd/system/([^/]+\.(?:service|socket|timer|path|mount|automount|target|slice|swap))\Z")
# Of these, nothing more can be asked by "enable": they have no [Install], or are made by systemd.
_ENABLED = ("enabled", "static", "alias", "indirect", "generated", "transient")
_UP = ("active", "reloading", "refreshing", "activating")
# These types tell systemd when they are up; of the others it knows only that the process was made.
_TELLING = ("notify", "notify-reload", "forking", "dbus", "oneshot")
_JOURNAL_LINES = 12
_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Type,RemainAfterExit,Result,CanReload,NRestarts"


@dataclass(frozen=True)
class UnitState:
    name: str
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        return self.facts.get("LoadState", "not-found") not in ("not-found", "")

    @property
    def active(self) -> bool:
        return self.facts.get("ActiveState") in _UP

    @property
    def failed(self) -> bool:
        return self.facts.get("ActiveState") == "failed"

    @property
    def enabled(self) -> bool:
        return self.facts.get("UnitFileState") in _ENABLED

    @property
    def switchable(self) -> bool:
        """Whether "enable" and "disable" make a difference; of a static or generated unit they do not."""
        return self.facts.get("UnitFileState") in ("enabled", "disabled")

    @property
    def runs_once(self) -> bool:
        """A one-shot that is not kept active: that it is inactive says that it has run."""
        return self.facts.get("Type") == "oneshot" and self.facts.get("RemainAfterExit") != "yes"


@dataclass
class UnitPlan:
    """What is to be done with one unit. `steps` in order, of: stop, disable, enable, start, reload, restart.

    `gone` is a unit whose own file goes with it.
    """

    name: str
    steps: list[str]
    state: UnitState
    settle: float = 1.0
    gone: bool = False


class Units:
    def __init__(
        self,
        runner: Runner,
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner = runner
        self.timeout = timeout
        self.sleep = sleep
        self.clock = clock
        self.warnings: list[str] = []

    # -- what is

    def states(self, names: Sequence[str]) -> dict[str, UnitState]:
        """All of them in one call."""
        if not names:
            return {}
        result = self.runner.run(["systemctl", "show", "--property", _PROPERTIES, "--", *names], timeout=self.timeout)
        if not result.ok:
            raise TransactionError(f"systemctl show: {result.words()}", phase="compare")
        blocks = [_properties(block) for block in result.stdout.strip("\n").split("\n\n")]
        if len(blocks) != len(names):
            raise TransactionError(
                f"systemctl show answered for {len(blocks)} of the units {', '.join(names)}", phase="compare"
            )
        return {name: UnitState(name, facts) for name, facts in zip(names, blocks, strict=True)}

    def removed(self, removed_paths: Iterable[str]) -> list[str]:
        """Units whose files are going, with the running instances of templates."""
        names: list[str] = []
        for path in removed_paths:
            match = _UNIT_FILE.search(path)
            if not match:
                continue
            name = match.group(1)
            if "@." in name:
                pattern = name.replace("@.", "@*.")
                result = self.runner.run(
                    ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--", pattern], timeout=self.timeout
                )
                names += [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
            else:
                names.append(name)
        return sorted(set(names))

    # -- what is to be done

    def going(self, removed_paths: Iterable[str]) -> list[UnitPlan]:
        """Units that go with their files are taken down first."""
        states = self.states(self.removed(removed_paths))
        return [UnitPlan(name, ["stop", "disable"], state, gone=True) for name, state in states.items()]

    def plan(self, specs: Sequence[UnitSpec], states: dict[str, UnitState], changed: Sequence[str]) -> list[UnitPlan]:
        plans = []
        for spec in specs:
            state = states[spec.name]
            steps: list[str] = []
            if spec.enabled is not None and state.known and spec.enabled != state.enabled:
                steps.append("enable" if spec.enabled else "disable")
            elif spec.enabled and not state.known:
                steps.append("enable")
            action = self._action(spec, state, changed)
            if spec.state == "stopped":
                steps += ["stop"] if state.active else []
            elif state.active:
                steps += [action] if action else []
            elif spec.state == "started" and (action or not state.runs_once or state.failed):
                steps.append("start")
            if steps:
                plans.append(UnitPlan(spec.name, steps, state, spec.settle))
        return plans

    def _action(self, spec: UnitSpec, state: UnitState, changed: Sequence[str]) -> str:
        relevant = [path for path in changed if not spec.files or _matches(path, spec.files)]
        own = [path for path in changed if belongs(path, spec.name)]
        if spec.on_change == "none" or not (relevant or own):
            return ""
        if spec.on_change == "restart" or own or any(_matches(path, spec.restart_on) for path in relevant):
            return "restart"
        return "reload" if state.facts.get("CanReload") != "no" else "restart"

    # -- doing it

    def daemon_reload(self) -> CommandResult:
        return self.runner.run(["systemctl", "daemon-reload"], timeout=self.timeout)

    def take_down(self, plans: Sequence[UnitPlan]) -> None:
        """All at once: they may depend on each other, and take their time."""
        for step in ("stop", "disable"):
            names = [plan.name for plan in plans if step in plan.steps]
            if names:
                self._do(step, names)

    def act(self, plan: UnitPlan) -> None:
        for step in plan.steps:
            if step in ("start", "restart"):
                # A unit that failed often would be refused for that alone.
                self.runner.run(["systemctl", "reset-failed", plan.name], timeout=self.timeout)
            self._do(step, [plan.name])

    def settle(self, plans: Sequence[UnitPlan]) -> None:
        """See whether all that was acted on is still there a moment later: one moment for all of them."""
        begin = self.clock()
        for plan in plans:
            if "reload" in plan.steps:
                self._settle(plan.name, plan.settle, begin, crashes=None)
            elif {"start", "restart"} & set(plan.steps):
                self._settle(plan.name, plan.settle, begin)

    def back(self, entry: UnitEntry) -> list[str]:
        """Bring a unit's former state back, over the former configuration. Returns what did not work."""
        steps: list[list[str]] = []
        if entry.enabled is not None:
            steps.append(["enable" if entry.enabled else "disable"])
        if not entry.active:
            steps.append(["stop"])
        else:
            running = self.states([entry.name])[entry.name].facts.get("ActiveState") == "active"
            if entry.action in ("reload", "restart"):
                steps.append([entry.action if running or entry.action == "restart" else "restart"])
            elif not running:
                steps.append(["start"])
        failures = []
        for (step,) in steps:
            try:
                if step in ("start", "restart"):
                    self.runner.run(["systemctl", "reset-failed", entry.name], timeout=self.timeout)
                self._do(step, [entry.name])
                if step in ("start", "restart"):
                    self._settle(entry.name, 1.0, self.clock())
            except TransactionError as error:
                failures.append(str(error))
        return failures

    def _do(self, step: str, names: Sequence[str]) -> None:
        self._ask(step, names)
        if step == "stop":
            self._forgive(names)

    def _forgive(self, names: Sequence[str]) -> None:
        """A unit that had to be killed when it was stopped counts as failed, and its host as degraded; but down it is."""
        for name, state in self.states(names).items():
            if state.failed:
                self._ask("reset-failed", [name])
                self.warnings.append(
                    f"{name} did not end by itself when it was stopped ({state.facts.get('Result') or 'unknown'}: "
                    "timeout means that it was killed for it). It is down, and no longer counted as failed"
                )

    def _ask(self, step: str, names: Sequence[str]) -> None:
        result = self.runner.run(["systemctl", "--quiet", step, "--", *names], timeout=self.timeout)
        if not result.ok:
            raise TransactionError(
                f"systemctl {step} {' '.join(names)}: {self._words(result, names, step)}", phase="apply", unit=names[0]
            )

    def _words(self, result: CommandResult, names: Sequence[str], step: str) -> str:
        said = result.words(lines=3)
        if step in ("enable", "disable"):
            return said
        return "\n".join([said, *(self.journal(name) for name in names)])

    def journal(self, name: str, *, restarted: bool = False) -> str:
        """The last the unit said."""
        said = unit_journal(self.runner, name, lines=_JOURNAL_LINES, restarted=restarted, timeout=self.timeout)
        return "\n".join([f"journal of {name}:", *(said or ["(empty)"])])

    def _settle(self, name: str, settle: float, begin: float, *, crashes: int | None = 0) -> None:
        """systemd calls a simple unit started as soon as its process exists: see whether it is there a moment later.

        One crash at start is systemd's to retry, a second one ends the wait. `crashes` is None after a
        reload, which for most is a signal that is answered later: a probe would ask what still runs as before.
        """
        deadline = begin + self.timeout
        calm_until = begin + settle
        telling = _TELLING if crashes is not None else ("notify-reload",)
        base = seen = crashes
        while True:
            state = self.states([name])[name]
            active = state.facts.get("ActiveState")
            if active == "failed" or (active == "inactive" and not state.runs_once):
                raise self._down(name, f"is {active} ({state.facts.get('Result', '')})")
            count = int(state.facts.get("NRestarts") or 0)
            base = count if base is None else base
            if count - base > 1:
                raise self._down(name, f"ends again and again ({state.facts.get('Result', '')})", restarted=True)
            if seen is not None and count != seen:
                calm_until = self.clock() + settle
            seen = count
            if active in ("active", "inactive"):
                told = count == base and state.facts.get("Type", "") in telling
                if told or self.clock() >= calm_until:
                    return
            if self.clock() >= deadline:
                raise self._down(
                    name, f"is still {active} ({state.facts.get('SubState', '')}) after {self.timeout:g} s"
                )
            self.sleep(0.1)

    def _down(self, name: str, how: str, *, restarted: bool = False) -> TransactionError:
        return TransactionError(f"{name} {how}\n{self.journal(name, restarted=restarted)}", phase="apply", unit=name)


def needs_daemon_reload(paths: Iterable[str]) -> bool:
    return any(path.startswith(UNIT_FOLDERS) for path in paths)


def belongs(path: str, unit: str) -> bool:
    """Whether a file is the unit's own file, its template's, or a drop-in of either."""
    names = {unit}
    if "@" in unit:
        stem, _at, rest = unit.partition("@")
        names.add(f"{stem}@.{rest.rpartition('.')[2]}")
    return any(path.endswith(f"/systemd/system/{name}") or f"/systemd/system/{name}.d/" in path for name in names)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _properties(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
