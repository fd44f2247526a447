# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time, and what systemd says of a unit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from ..commands import Runner
from ..unit_journal import unit_journal

JOURNAL_LINES = 15
PROPERTIES = "LoadState,ActiveState,SubState,Result,NRestarts,InactiveExitTimestamp,ExecMainCode,ExecMainStatus,Job"


class Clock(Protocol):
    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class UnitState:
    load: str
    active: str
    sub: str
    result: str
    restarts: int
    started: str  # seconds since the epoch, as journalctl wants them (@1700000000); empty where it never was
    exit_code: str
    exit_status: str
    job: bool

    @property
    def running(self) -> bool:
        return self.active in ("active", "reloading", "refreshing")

    def describe(self) -> str:
        how = "" if self.result in ("", "success") else f", {self.result}"
        # ExecMainCode is CLD_EXITED (1), CLD_KILLED (2) or CLD_DUMPED (3).
        if self.exit_code == "1":
            how += f", exit status {self.exit_status}"
        elif self.exit_code in ("2", "3"):
            how += f", killed by signal {self.exit_status}"
        return f"{self.active} ({self.sub}{how})"


def unit_state(unit: str, runner: Runner) -> UnitState | None:
    """None where systemd does not answer: that must not end a probe which the service itself could pass."""
    outcome = runner.run(["systemctl", "show", "--timestamp=unix", f"--property={PROPERTIES}", "--", unit], timeout=10)
    values = dict(line.partition("=")[::2] for line in outcome.stdout.splitlines() if "=" in line)
    if outcome.rc != 0 or "ActiveState" not in values:
        return None
    started = values.get("InactiveExitTimestamp", "")
    return UnitState(
        load=values.get("LoadState", ""),
        active=values["ActiveState"],
        sub=values.get("SubState", ""),
        result=values.get("Result", ""),
        restarts=int(values.get("NRestarts") or 0),
        started=started if started.startswith("@") else "",
        exit_code=values.get("ExecMainCode", ""),
        exit_status=values.get("ExecMainStatus", ""),
        job=bool(values.get("Job", "").strip("0")),
    )


def journal(unit: str, state: UnitState | None, runner: Runner) -> list[str]:
    """The last that the unit said since it was started; of the run before, where systemd has started it again."""
    since, restarted = (state.started, state.restarts > 0) if state else ("", False)
    return unit_journal(runner, unit, lines=JOURNAL_LINES, since=since, restarted=restarted)
