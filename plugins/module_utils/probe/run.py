# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask until it answers, the time is over, or its unit shows that it never will."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..commands import Runner, SystemRunner
from .attempt import Answer, attempt, tls_context
from .holder import foreign_holder
from .spec import ProbeSpec, ProbeSpecError
from .system import Clock, SystemClock, UnitState, journal, unit_state

CRASH_SERIES = 3  # restarts by systemd since the first look: one is systemd's to mend, this many are a pattern
STOPPED_LOOKS = 3  # looks in a row at a stopped unit that nothing is about to start


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    ok: bool
    message: str
    tries: int
    elapsed: float
    last: str
    status: int | None = None
    unit_state: str | None = None
    journal: tuple[str, ...] = ()

    def as_result(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "tries": self.tries,
            "elapsed": round(self.elapsed, 3),
            "last_answer": self.last,
            "status": self.status,
            "unit_state": self.unit_state,
            "journal": list(self.journal),
        }


class _Watch:
    """What the unit did since the first look at it."""

    def __init__(self, unit: str, runner: Runner) -> None:
        self.unit, self.runner = unit, runner
        self.state = unit_state(unit, runner)
        self._restarts = self.state.restarts if self.state else 0
        self._stopped = 0

    def hopeless(self) -> str | None:
        """Why the unit will not answer any more; None as long as it may."""
        self.state = unit_state(self.unit, self.runner) or self.state
        state = self.state
        if state is None:
            return None
        if state.load in ("not-found", "bad-setting", "error", "masked"):
            return f"the unit {self.unit} is {state.load}"
        if state.active == "failed":
            return f"the unit {self.unit} is {state.describe()}"
        # A start by hand sets systemd's counter back.
        self._restarts = min(self._restarts, state.restarts)
        crashes = state.restarts - self._restarts
        if crashes >= CRASH_SERIES:
            return f"the unit {self.unit} crashed {crashes} times meanwhile, now {state.describe()}"
        self._stopped = self._stopped + 1 if state.active == "inactive" and not state.job else 0
        return (
            f"the unit {self.unit} is {state.describe()} and nothing starts it"
            if self._stopped >= STOPPED_LOOKS
            else None
        )

    def doubt(self, spec: ProbeSpec) -> str | None:
        """Why a right answer is not the unit's; None where it is."""
        if self.state and not self.state.running:
            return f"the unit {self.unit} is {self.state.describe()}"
        holder = foreign_holder(self.unit, spec.address(), self.runner)
        return f"it came from {holder}, which holds the port, and not from {self.unit}" if holder else None


def probe(spec: ProbeSpec, runner: Runner | None = None, clock: Clock | None = None) -> ProbeResult:
    runner, clock = runner or SystemRunner(), clock or SystemClock()
    begin = clock.monotonic()
    watch = _Watch(spec.unit, runner) if spec.unit else None
    try:
        context = tls_context(spec)
    except ProbeSpecError as error:
        return ProbeResult(ok=False, message=str(error), tries=0, elapsed=0.0, last=str(error))
    tries = in_a_row = wrong_in_a_row = 0
    while True:
        tries += 1
        answer = attempt(spec, context)
        hopeless = watch.hopeless() if watch and (not answer.ok or in_a_row + 1 >= spec.successes) else None
        if answer.ok and watch and in_a_row + 1 >= spec.successes:
            # Another process may hold the port, or the unit not have said yet that it is ready.
            doubt = watch.doubt(spec)
            if doubt:
                answer = Answer(ok=False, words=f"{answer.words}, but {doubt}", status=answer.status)
        in_a_row = in_a_row + 1 if answer.ok else 0
        wrong_in_a_row = 0 if answer.ok else wrong_in_a_row + 1
        if spec.failures and wrong_in_a_row >= spec.failures and not hopeless:
            hopeless = f"{wrong_in_a_row} wrong answers in a row"
        elapsed = clock.monotonic() - begin
        if answer.ok and in_a_row >= spec.successes:
            return _result(spec, answer, tries, elapsed, watch, ok=True)
        if hopeless or elapsed >= spec.deadline:
            return _result(spec, answer, tries, elapsed, watch, ok=False, because=hopeless)
        # The last try comes at the deadline, and not an interval before it.
        clock.sleep(min(spec.interval, spec.deadline - elapsed))


def _result(
    spec: ProbeSpec,
    answer: Answer,
    tries: int,
    elapsed: float,
    watch: _Watch | None,
    *,
    ok: bool,
    because: str | None = None,
) -> ProbeResult:
    state: UnitState | None = watch.state if watch else None
    how_often = f"{tries} {'try' if tries == 1 else 'tries'} over {elapsed:.1f} s"
    lines: list[str] = []
    if ok:
        message = f"{spec.describe()}: {answer.words} ({how_often})"
    else:
        in_a_row = f" (needed: {spec.successes} right answers in a row)" if spec.successes > 1 else ""
        message = f"{spec.describe()} failed: {how_often}{in_a_row}. Last answer: {answer.words}."
        if because:
            message += f" Given up before the deadline of {spec.deadline:g} s: {because}."
        elif watch and state and state.running is False:
            message += f" The unit {spec.unit} is {state.describe()}."
        if watch:
            lines = journal(watch.unit, state, watch.runner)
            said = "\n  ".join(lines) if lines else "nothing was written to it"
            message += f"\nThe journal of {spec.unit}:\n  {said}"
    return ProbeResult(
        ok=ok,
        message=message,
        tries=tries,
        elapsed=elapsed,
        last=answer.words,
        status=answer.status,
        unit_state=state.describe() if state else None,
        journal=tuple(lines),
    )
