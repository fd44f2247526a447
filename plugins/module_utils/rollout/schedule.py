# GNU General Public License v3.0+ (see LICENSE)
"""Strategies: the same few steps in another order. A schedule is data, so it is shown before it is carried out, and tested without a host.

| phase | what happens, on which hosts |
|---|---|
| prepare | packages that the new version needs are installed, on its hosts and on those of the database |
| install | the release is put in place, beside the one that runs |
| stage | what the idle slot reads is put in place; it does not start |
| rehearse | in a network of its own the new release runs against a copy of the database, and the old one on what that leaves |
| copy | a copy of the database is kept, where the new release changes it |
| database | the database, its role and its pool get what the new version needs of them |
| start | the idle slot starts with it, and answers; else it is taken away again |
| gate | it answers so many times in a row, and its unit does not crash meanwhile |
| traffic | the edges send each host's requests to its new slot, or a share of them |
| observe | the edges' own logs say that the new slots have no more errors, and answer no slower |
| soak | it goes on answering while users use it |
| judge | the gates that the inventory adds pass: commands, queries of Prometheus |
| drain | the last requests of the other slot end |
| finish | the new slot is the one that serves: it comes back with the host, and the old one stops |
| settle | the edges let go of the slot that stood in |
| revive | the old slot starts again, as it was |
| adopt | the old slot is the one that serves, as before; the new one stops |
| readopt | the slot that served before a rollback is again the one that serves; the other one stops |
| discard | what the new slot read is taken away |
| halt | a slot that was started stops, as it could not take over |
| unpack | the copy of the database is unpacked beside it |
| stop | the slot that serves stops: from here on users wait |
| swap | the copy takes the place of the database, which is kept under another name |
| swap_back | the database has its place again |
| resume | the slot that served starts again |
| forget | the unpacked copy is dropped |

Until it settles, the slot that has lost its traffic stands in at the edges: where the other one cannot be reached (it crashed, its host has booted
and brought back what served before), requests go on to this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .own_gates import START, TRAFFIC, OwnGate

STRATEGIES = ("blue_green", "rolling", "canary", "restart")
ALL = 100  # per cent


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds that things may take at most, beside what the definition says of the program.

    The gate is the one of the seeds: asked every `interval` seconds with `timeout` seconds each, up after `successes` right answers
    in a row, and not after `failures` wrong ones.
    """

    start: int
    stop: int
    interval: float = 2
    timeout: float = 3
    successes: int = 2
    failures: int = 3
    soak: int = 10
    drain: int = 30
    shares: Sequence[int] = (10, 50)  # per cent of the requests that a canary gets, one after the other
    observe: int = 60
    canary: Mapping[str, float] = field(
        default_factory=dict
    )  # of selfhost.fleet.canary_gate's limits, those that are not its own

    @property
    def gate(self) -> int:
        return round((self.successes + self.failures) * (self.interval + self.timeout))


@dataclass(frozen=True, kw_only=True)
class Step:
    """`shares`: per cent of a host's requests that its new slot has from then on, in phase traffic; `seconds` at most, 0 where nobody can tell.

    `gates`: names of the service's own, in phase judge. `guard`: whether a slot that has lost all of its traffic stands in.
    """

    phase: str
    hosts: tuple[str, ...]
    seconds: int = 0
    shares: Mapping[str, int] = field(default_factory=dict)
    gates: tuple[str, ...] = ()
    guard: bool = False

    def as_data(self) -> dict[str, Any]:
        lists = {"hosts": list(self.hosts), "shares": dict(self.shares), "gates": list(self.gates)}
        return {**asdict(self), **lists, "name": self.name}

    @property
    def name(self) -> str:
        """For people, and what the ledger calls it."""
        shares = ", ".join(f"{host} {share} %" for host, share in self.shares.items() if self.phase != "settle")
        gates = f": {', '.join(self.gates)}" if self.gates else ""
        return f"{self.phase} {shares or ', '.join(self.hosts)}{gates}"


def schedule(
    strategy: str,
    hosts: Sequence[str],
    involved: Sequence[str],
    limits: Limits,
    *,
    edges: Sequence[str] = (),
    rehearsed_on: Sequence[str] = (),
    copied_on: Sequence[str] = (),
    gates: Sequence[OwnGate] = (),
) -> list[Step]:
    """From the version that runs on all hosts to the new one; `involved` are all hosts whose packages or database it needs."""
    steps = [
        Step(phase="prepare", hosts=tuple(involved)),
        Step(phase="install", hosts=tuple(hosts)),
    ]
    if rehearsed_on:
        steps.append(Step(phase="stage", hosts=tuple(rehearsed_on)))
        steps.append(Step(phase="rehearse", hosts=tuple(rehearsed_on)))
    if copied_on:
        steps.append(Step(phase="copy", hosts=tuple(copied_on)))
    # Only now: a rehearsal that refuses the release leaves the database as it was.
    steps.append(Step(phase="database", hosts=tuple(involved)))
    if strategy == "rolling":
        for number, host in enumerate(hosts):
            steps += _up([host], limits, gates)
            steps += _over(hosts[: number + 1], [host], hosts, limits, gates)
            steps.append(Step(phase="finish", hosts=(host,), seconds=limits.stop))
        return [*steps, settled(hosts, ALL)]
    if strategy == "restart":
        for number, host in enumerate(hosts):
            # Of a component that owns its data alone: never two at a time.
            steps.append(Step(phase="stop", hosts=(host,), seconds=limits.stop))
            steps += _up([host], limits, gates)
            over = _over(hosts[: number + 1], [host], hosts, limits, gates)
            steps += [step for step in over if step.phase != "drain"]
            steps.append(Step(phase="finish", hosts=(host,), seconds=limits.stop))
        return [*steps, settled(hosts, ALL)]
    # One host alone first: where a program migrates at its start, two must not do it at once.
    steps += _up(hosts[:1], limits, gates)
    if len(hosts) > 1:
        steps += _up(hosts[1:], limits, gates)
    if strategy == "canary":
        for share in limits.shares:
            shares = dict.fromkeys(hosts, share)
            steps.append(Step(phase="traffic", hosts=tuple(hosts), seconds=60, shares=shares))
            steps.append(Step(phase="observe", hosts=tuple(edges), seconds=limits.observe, shares=shares))
            steps += _judged(hosts, TRAFFIC, gates, shares)
    steps += _over(hosts, hosts, hosts, limits, gates)
    steps.append(Step(phase="finish", hosts=tuple(hosts), seconds=limits.stop))
    return [*steps, settled(hosts, ALL)]


def home_again(hosts: Sequence[str], limits: Limits) -> list[Step]:
    """Before a slot gets another version than the one that a rollout which was cut off had begun with: it may have traffic."""
    return [
        *_revived(hosts, limits),
        Step(phase="traffic", hosts=tuple(hosts), seconds=60, shares=dict.fromkeys(hosts, 0)),
    ]


def refresh(strategy: str, hosts: Sequence[str], limits: Limits) -> list[Step]:
    """The same version in the other slots: nothing is prepared, and there is nothing to compare."""
    one_switch = "blue_green" if strategy == "canary" else strategy
    steps = schedule(one_switch, hosts, (), limits)
    return [step for step in steps if step.phase not in ("prepare", "install", "database")]


def _up(hosts: Sequence[str], limits: Limits, gates: Sequence[OwnGate]) -> list[Step]:
    return [
        Step(phase="start", hosts=tuple(hosts), seconds=limits.start),
        Step(phase="gate", hosts=tuple(hosts), seconds=limits.gate),
        *_judged(hosts, START, gates),
    ]


def _over(
    moved: Sequence[str], now: Sequence[str], hosts: Sequence[str], limits: Limits, gates: Sequence[OwnGate]
) -> list[Step]:
    shares = {host: ALL if host in moved else 0 for host in hosts}
    return [
        Step(phase="traffic", hosts=tuple(hosts), seconds=60, shares=shares, guard=True),
        Step(phase="soak", hosts=tuple(now), seconds=limits.soak),
        *_judged(now, TRAFFIC, gates, shares),
        Step(phase="drain", hosts=tuple(now), seconds=limits.drain),
    ]


def _judged(
    hosts: Sequence[str], moment: str, gates: Sequence[OwnGate], shares: Mapping[str, int] | None = None
) -> list[Step]:
    due = [gate for gate in gates if moment in gate.moments]
    seconds = sum(gate.timeout for gate in due)
    names = tuple(gate.name for gate in due)
    return [Step(phase="judge", hosts=tuple(hosts), seconds=seconds, shares=shares or {}, gates=names)] if due else []


def way_back(done: Sequence[Step], hosts: Sequence[str], limits: Limits) -> list[Step]:
    """From wherever a rollout came, its failed step among them, to the old slots alone. Empty where nothing of it is running, and once it settles."""
    if _settles(done):
        return []
    phases = {
        phase: [host for host in hosts if _touched(done, phase, host)] for phase in ("stage", "start", "stop", "finish")
    }
    moved = any(step.phase == "traffic" for step in done)
    down = [host for host in hosts if host in phases["stop"] or host in phases["finish"]]
    steps: list[Step] = []
    # Of a component that owns its data alone: never two at a time, and the host that came last first, as others may serve.
    alone = [host for host in reversed(phases["start"]) if host in phases["stop"]]
    if rest := [host for host in down if host not in alone]:
        steps += _revived(rest, limits)
    for host in alone:
        steps.append(Step(phase="halt", hosts=(host,), seconds=limits.stop))
        steps += _revived([host], limits)
    if moved:
        steps.append(Step(phase="traffic", hosts=tuple(hosts), seconds=60, shares=dict.fromkeys(hosts, 0)))
    if phases["start"]:
        steps.append(Step(phase="adopt", hosts=tuple(phases["start"]), seconds=limits.stop))
    written = [host for host in hosts if host in phases["stage"] or host in phases["start"]]
    if written:
        steps.append(Step(phase="discard", hosts=tuple(written), seconds=limits.stop))
    return steps


def rollback(
    hosts: Sequence[str], limits: Limits, *, restored_on: Sequence[str] = (), alone: bool = False
) -> list[Step]:
    """To the release that each host has kept in its idle slot; proven like a new one. With the database of before, where it is restored.

    `alone`: of a component that owns its data alone, never two at a time.
    """
    if alone and not restored_on:
        steps: list[Step] = []
        for number, host in enumerate(hosts):
            shares = {each: 0 if each in hosts[: number + 1] else ALL for each in hosts}
            steps.append(Step(phase="stop", hosts=(host,), seconds=limits.stop))
            steps += _revived([host], limits)
            steps.append(Step(phase="traffic", hosts=tuple(hosts), seconds=60, shares=shares, guard=True))
            steps.append(Step(phase="adopt", hosts=(host,), seconds=limits.stop))
        return [*steps, settled(hosts, 0)]
    restored = [
        Step(phase="unpack", hosts=tuple(restored_on)),
        # What would be written from here on would be lost.
        Step(phase="stop", hosts=tuple(hosts), seconds=limits.stop),
        Step(phase="swap", hosts=tuple(restored_on), seconds=60),
    ]
    return [
        *(restored if restored_on else []),
        *_revived(hosts, limits),
        Step(phase="traffic", hosts=tuple(hosts), seconds=60, shares=dict.fromkeys(hosts, 0), guard=not restored_on),
        Step(phase="drain", hosts=tuple(hosts), seconds=limits.drain),
        Step(phase="adopt", hosts=tuple(hosts), seconds=limits.stop),
        # The version that has migrated must not come near a database of before that.
        *([] if restored_on else [settled(hosts, 0)]),
    ]


def back_from_rollback(done: Sequence[Step], hosts: Sequence[str], limits: Limits) -> list[Step]:
    """From wherever a rollback came to the slots that served before it. Empty once it settles."""
    if _settles(done):
        return []
    moved = [Step(phase="traffic", hosts=tuple(hosts), seconds=60, shares=dict.fromkeys(hosts, ALL))]
    moved = moved if any(step.phase == "traffic" for step in done) else []
    revived, stopped, adopted = (
        tuple(host for host in hosts if _touched(done, phase, host)) for phase in ("revive", "stop", "adopt")
    )
    halted = [Step(phase="halt", hosts=revived, seconds=limits.stop)] if revived else []
    databases = {phase: _hosts_of(done, phase) for phase in ("unpack", "swap")}
    readopted = [Step(phase="readopt", hosts=adopted, seconds=limits.stop)] if adopted else []
    if stopped and not databases["unpack"]:
        # Never two at a time here either, and the host that came last first.
        alone: list[Step] = []
        for host in reversed(stopped):
            if host in revived:
                alone.append(Step(phase="halt", hosts=(host,), seconds=limits.stop))
            alone.append(Step(phase="resume", hosts=(host,), seconds=limits.start))
        return [*alone, *moved, *readopted]
    if not databases["unpack"]:
        resumed = [Step(phase="resume", hosts=adopted, seconds=limits.start)] if adopted else []
        return resumed + moved + (readopted or halted)
    # Nobody serves, or by a database that goes away: the other way round.
    steps = halted
    if databases["swap"]:
        steps.append(Step(phase="swap_back", hosts=databases["swap"], seconds=60))
    if stopped:
        steps.append(Step(phase="resume", hosts=stopped, seconds=limits.start))
    return [*steps, *moved, *readopted, Step(phase="forget", hosts=databases["unpack"])]


def settled(hosts: Sequence[str], share: int) -> Step:
    return Step(phase="settle", hosts=tuple(hosts), seconds=60, shares=dict.fromkeys(hosts, share))


def _settles(done: Sequence[Step]) -> bool:
    """By then nothing is left to go back to, and only edges have something left over."""
    return any(step.phase == "settle" for step in done)


def _revived(hosts: Sequence[str], limits: Limits) -> list[Step]:
    return [Step(phase="revive", hosts=tuple(hosts), seconds=limits.start)]


def _hosts_of(done: Sequence[Step], phase: str) -> tuple[str, ...]:
    return next((step.hosts for step in done if step.phase == phase), ())


def _touched(done: Sequence[Step], phase: str, host: str) -> bool:
    return any(step.phase == phase and host in step.hosts for step in done)
