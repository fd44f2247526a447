# GNU General Public License v3.0+ (see LICENSE)
"""What an operator sees of rollouts: events in, lines out. The callback `rollout` hands over the events, and knows nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Data = Mapping[str, Any]
RUNS, DONE, FAILED = "cut off", "done", "failed"
ENDS = {"done": "done", "rolled_back": "rolled back", "failed": "failed, and so did the way back"}
PROBED = {"tries", "elapsed", "ok", "last_answer"}  # what a result of the module probe has


@dataclass(kw_only=True)
class Taken:
    """A step that was begun. `limit`: seconds at most, 0 where nobody can tell; `changed`: tasks by host."""

    name: str
    phase: str
    limit: float
    began: float
    back: bool
    outcome: str = RUNS
    seconds: float = 0
    notes: list[str] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"back: {self.name}" if self.back else self.name


def local_time(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


class Progress:
    """One rollout after the other. `clock` gives seconds since the epoch, `stamp` makes a time of the day of them."""

    def __init__(self, clock: Callable[[], float] = time.time, stamp: Callable[[float], str] = local_time) -> None:
        self._clock, self._stamp = clock, stamp
        self._news: Data = {}
        self._limits: Data = {}
        self._began = 0.0
        self._taken: list[Taken] = []
        self._task = ""

    @property
    def open(self) -> bool:
        """Whether a rollout was begun that has not ended."""
        return bool(self._news)

    def told(self, news: Data, limits: Data) -> list[str]:
        """An event as selfhost.fleet.rollout_event has it: the beginning of a rollout, or its end."""
        if news["event"] == "started" or not self.open:
            self._news, self._limits, self._taken, self._began = news, limits, [], self._clock()
        if news["event"] == "started":
            return [self._line(f"{self._heading()}, on {', '.join(news['hosts'])}, by {news['operator']}")]
        lines = [*self._close(DONE), "", *self._summary(ENDS[news["event"]]), *_versions(news)]
        self._news = {}
        return lines

    def begun(self, steps: Sequence[Data]) -> list[str]:
        """The steps that were begun by now, of which a host says that the last one is new. Every host says so."""
        if not self.open or len(steps) <= len(self._taken):
            return []
        back = any(step.outcome == FAILED for step in self._taken)
        lines = self._close(DONE)
        new = steps[-1]
        self._taken.append(
            Taken(
                name=str(new["name"]),
                phase=str(new["phase"]),
                limit=float(new["seconds"]),
                began=self._clock(),
                back=back,
            )
        )
        return lines

    def failed(self) -> list[str]:
        """A task of the current step failed on a host: why, is shown beside this."""
        return self._close(FAILED)

    def running(self, task: str) -> None:
        self._task = task

    def changed(self, host: str, task: str) -> bool:
        """Whether that is of a step, and so will be told at the end."""
        if not self.open or not self._taken:
            return False
        tasks = self._taken[-1].changed.setdefault(host, [])
        tasks += [task] if task not in tasks else []
        return True

    def probed(self, host: str, result: Data) -> None:
        """A probe came to its end; `result` may be that of any other module."""
        if not self._taken or not set(result) >= PROBED or not result["ok"]:
            return
        item = result.get("item")
        unit = str(item.get("unit", "")) if isinstance(item, Mapping) else ""
        wanted = answers_wanted(self._taken[-1].phase, self._limits)
        self._taken[-1].notes.append(
            f"{unit.removesuffix('.service') or 'it'} on {host} gave {wanted} of {wanted} answers in {result['tries']} tries"
        )

    def broken_off(self) -> list[str]:
        """What is left to say of a rollout that came to no end."""
        if not self.open:
            return []
        lines = ["", *self._summary("came to no end"), "  Run upgrade.yml again: it goes on with what was begun."]
        self._news = {}
        return lines

    def view(self) -> list[str]:
        """The state of things, for a terminal; empty where there is nothing to see. Lines may be longer than the terminal is wide."""
        if not self.open:
            return []
        now = self._clock()
        total = len(self._news["steps"])
        current = self._taken[-1] if self._taken else None
        number = "back" if current and (current.back or current.outcome == FAILED) else f"{len(self._taken)} of {total}"
        lines = [f"{self._heading()}   step {number}   {_clock_text(now - self._began)}"]
        if current is None or current.outcome == FAILED:
            return [*lines, "  going back" if current else "  beginning", f"  {self._task}"]
        gate = gate_text(current.phase, self._limits)
        left = [time_left(current.limit, now - current.began), *([gate] if gate else [])]
        return [*lines, f"  {current.title}   {'   '.join(left)}", f"  {'; '.join(current.notes) or self._task}"]

    def _heading(self) -> str:
        news = self._news
        return f"{news['service']} {_listed(news['from'])} -> {_listed(news['to'])}, {news['strategy']}"

    def _line(self, text: str) -> str:
        return f"{self._stamp(self._clock())}  {text}"

    def _close(self, outcome: str) -> list[str]:
        """The line of the step that ends with this, if one runs."""
        if not self._taken or self._taken[-1].outcome != RUNS:
            return []
        step = self._taken[-1]
        step.outcome, step.seconds = outcome, max(0.0, self._clock() - step.began)
        width = max(len(name) for name in [step.title, *(str(each["name"]) for each in self._news["steps"])])
        line = f"{self._news['service']}  {step.title:<{width}}  {outcome:<6}  {step.seconds:5.1f} s"
        return [self._line("  ".join([line, *step.notes]))]

    def _summary(self, end: str) -> list[str]:
        """How it ended, what each step took, and what changed in it."""
        lines = [f"{self._heading()}: {end} after {self._clock() - self._began:.1f} s"]
        width = max((len(step.title) for step in self._taken), default=0)
        for step in self._taken:
            seconds = self._clock() - step.began if step.outcome == RUNS else step.seconds
            lines.append(f"  {step.title:<{width}}  {step.outcome:<6}  {seconds:6.1f} s")
            lines += [f"    changed on {hosts}: {tasks}" for tasks, hosts in _together(step.changed).items()]
        return lines


def answers_wanted(phase: str, limits: Data) -> int:
    """How many right answers in a row let a slot through."""
    return max(int(limits["soak"]), 1) if phase == "soak" else int(limits["successes"])


def gate_text(phase: str, limits: Data) -> str:
    """What has to hold before a rollout goes on from this phase; empty where it is no gate."""
    wanted = f"{answers_wanted(phase, limits)} right answers in a row"
    refused = f"{limits['failures']} wrong ones end it"
    return {
        "rehearse": "both versions have to start on a copy of the database",
        "start": "the slot has to answer",
        "revive": f"gate: {wanted}",
        "gate": f"gate: {wanted}, one in {limits['interval']:g} s; {refused}",
        "soak": f"gate: {wanted}, with users on it; {refused}",
        "observe": "gate: no more errors, and answers no slower, than of the former version",
        "drain": "the last requests end",
    }.get(phase, "")


def time_left(limit: float, elapsed: float) -> str:
    """Of the most seconds that a step may take, so far as somebody can tell."""
    if not limit:
        return f"{_clock_text(elapsed)}, as long as it takes"
    return f"{max(0, round(limit - elapsed))} s left at most"


def failure(result: Data) -> tuple[str, dict[str, Any]]:
    """What a failed task said, to be shown as it is with its line breaks; and all else that it returned."""
    known = {"msg", "failed", "changed", "exception", "invocation", "assertion", "evaluated_to"}
    others = {
        key: value for key, value in result.items() if key not in known and not key.startswith(("_", "ansible_loop"))
    }
    return str(result.get("msg") or ""), others


def said(result: Data) -> list[str]:
    """The lines of a task that is there to say something."""
    text = result.get("msg", "")
    entries = text if isinstance(text, (list, tuple)) else [text]
    return [line for entry in entries for line in str(entry).splitlines()]


def _versions(news: Data) -> list[str]:
    """What is where in the end."""
    former, new = news["from"], news["to"]
    if news["event"] == "failed":
        return [f"  {host} may serve {former[host]} or {new.get(host)}" for host in former]
    if news["event"] == "rolled_back":
        return [f"  {host} serves {former[host]} as before, and not {new.get(host)}" for host in former]
    # They are the same where what was cut off was taken back.
    return [
        f"  {host} serves {version} "
        + ("as before" if former.get(host) == version else f"instead of {former.get(host)}")
        for host, version in new.items()
    ]


def _together(changed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The hosts by what changed on them."""
    found: dict[str, list[str]] = {}
    for host, tasks in changed.items():
        found.setdefault(", ".join(tasks), []).append(host)
    return {tasks: ", ".join(sorted(hosts)) for tasks, hosts in found.items()}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(sorted({str(version) for version in versions.values()}))


def _clock_text(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def cut(lines: Iterable[str], width: int) -> list[str]:
    """For a view that is drawn over and over: a line that wraps could not be drawn over."""
    return [line if len(line) < width else f"{line[: max(0, width - 2)]}…" for line in lines]
