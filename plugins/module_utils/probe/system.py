# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time, and what systemd says of a unit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from ..commands import Runner

JOURNAL_LINES = 15
PROPERTIES = "LoadState,ActiveState,SubState,Result,NRestarts,InvocationID,ExecMainCode,ExecMainStatus,Job"


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
    invocation: str
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
    outcome = runner.run(["systemctl", "show", f"--property={PROPERTIES}", "--", unit], timeout=10)
    values = dict(line.partition("=")[::2] for line in outcome.stdout.splitlines() if "=" in line)
    if outcome.rc != 0 or "ActiveState" not in values:
        return None
    return UnitState(
        load=values.get("LoadState", ""),
        active=values["ActiveState"],
        sub=values.get("SubState", ""),
        result=values.get("Result", ""),
        restarts=int(values.get("NRestarts") or 0),
        invocation=values.get("InvocationID", ""),
        exit_code=values.get("ExecMainCode", ""),
        exit_status=values.get("ExecMainStatus", ""),
        job=bool(values.get("Job", "").strip("0")),
    )


def journal(unit: str, state: UnitState | None, runner: Runner) -> list[str]:
    """The last lines of this invocation; of the unit altogether where this one has written nothing yet."""
    # --invocation is only in systemd 257 and later, so the fields are matched.
    wanted: list[list[str]] = [["--unit", unit]]
    if state is not None and state.invocation:
        own, systemd = f"_SYSTEMD_INVOCATION_ID={state.invocation}", f"INVOCATION_ID={state.invocation}"
        wanted.insert(0, [own, "+", systemd])
    for match in wanted:
        command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={JOURNAL_LINES}", *match]
        outcome = runner.run(command, timeout=10)
        lines = [line.rstrip() for line in outcome.stdout.splitlines() if line.strip()]
        if outcome.rc == 0 and lines:
            return lines[-JOURNAL_LINES:]
    return []
