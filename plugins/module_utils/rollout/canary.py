# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a new release answers worse than the old one: by its errors, and by its 95th percentile.

Two things have to come together for a failure. The difference is large enough to matter, and it is not chance: Fisher's exact
test, one-sided, says so. Exact, since errors are few, where approximations by a normal distribution are wrong.

The gate looks again and again, and every look is a chance to be wrong. So the significance is spent in parts (Bonferroni, which
holds however the looks depend on each other): half of it for each of the two questions, of that a half for the last look and
the other half for all looks before it, in equal parts. An early end so needs much stronger evidence than the last word, which is
the idea of Haybittle (1971) and Peto (1976) for trials that are looked at while they run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .access_log import Tally

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"
QUESTIONS = 2  # errors and latency
PERCENTILE = 95


class LimitsError(ValueError):
    """A limit as written means nothing; the message names the option."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    min_requests: int = 100  # of each side
    significance: float = 0.01  # the chance that a release that is no worse fails, over all looks together
    error_margin: float = 1.0  # percentage points
    latency_factor: float = 1.5
    latency_floor: float = 50.0  # milliseconds

    def __post_init__(self) -> None:
        if self.min_requests < 1:
            raise LimitsError(f"min_requests is {self.min_requests}; at least 1 is needed.")
        if not 0 < self.significance < 1:
            raise LimitsError(f"significance is {self.significance:g}; it is a chance, such as 0.01.")
        if not 0 <= self.error_margin <= 100:
            raise LimitsError(f"error_margin is {self.error_margin:g}; it is percentage points, 0 to 100.")
        if not 1 <= self.latency_factor < math.inf:
            raise LimitsError(f"latency_factor is {self.latency_factor:g}; it is 1 or more.")
        if not 0 <= self.latency_floor < math.inf:
            raise LimitsError(f"latency_floor is {self.latency_floor:g}; it is milliseconds, 0 or more.")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Limits:
        """Of a module's parameters, which have others beside."""
        return cls(**{name: options[name] for name in cls.__dataclass_fields__ if options.get(name) is not None})

    def level(self, looks: int, *, last: bool) -> float:
        """The significance that one look may spend on one question."""
        share = self.significance / QUESTIONS
        if looks <= 1:
            return share
        return share / 2 if last else share / 2 / (looks - 1)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A side in numbers that can be added to those of another edge."""

    requests: int
    errors: int
    timed: int
    above: int  # of the timed ones, slower than the old release's p95
    beyond: int  # of the timed ones, slower than the new release's p95 may be
    p95: int | None  # milliseconds; not to be added

    def as_result(self) -> dict[str, int | None]:
        return {
            "requests": self.requests,
            "errors": self.errors,
            "timed": self.timed,
            "above": self.above,
            "beyond": self.beyond,
            "p95_ms": self.p95,
        }

    def words(self) -> str:
        rate = f" ({100 * self.errors / self.requests:.1f} %)" if self.requests else ""
        p95 = "" if self.p95 is None else f", p95 {self.p95} ms"
        return f"{_number(self.requests, 'request')}, {_number(self.errors, 'error')}{rate}{p95}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    outcome: str
    words: str
    reasons: tuple[str, ...]  # errors, latency
    old: Counts
    new: Counts
    latency_limit: float | None  # milliseconds


def judge(old: Tally, new: Tally, limits: Limits, *, looks: int = 1, last: bool = True) -> Verdict:
    """`looks`: how many there will be of these two sides, this one among them; `last`: whether none comes after it."""
    level = limits.level(looks, last=last)
    p95 = percentile(old)
    limit = None if p95 is None else max(p95 * limits.latency_factor, p95 + limits.latency_floor)
    before, after = _counts(old, p95, limit), _counts(new, p95, limit)
    found = {"errors": _errors(before, after, limits, level), "latency": _latency(before, after, limit, level)}
    reasons = tuple(name for name, words in found.items() if words)
    both = f"New: {after.words()}. Old: {before.words()}."
    if reasons:
        outcome, words = FAIL, f"The new release answers worse: {'; '.join(found[name] for name in reasons)}. {both}"
    elif few := _few(before, after, limits):
        outcome, words = UNDECIDED, f"Not enough requests to tell: {few}. {both}"
    else:
        outcome = PASS
        words = f"Nothing says that the new release answers worse. {both}"
        if min(before.timed, after.timed) < limits.min_requests:
            words += (
                f" Too few times to compare the p95 by: {after.timed} of the new release, {before.timed} of the old one"
                " (WebSockets, streams and errors have none)."
            )
    return Verdict(outcome=outcome, words=words, reasons=reasons, old=before, new=after, latency_limit=limit)


def percentile(tally: Tally, percent: int = PERCENTILE) -> int | None:
    """By nearest rank: the least time that so many percent of the requests did not exceed. None where none was timed."""
    rank = -(-tally.timed * percent // 100)
    for milliseconds in sorted(tally.times):
        rank -= tally.times[milliseconds]
        if rank <= 0:
            return milliseconds
    return None


def fisher(new_marked: int, new: int, old_marked: int, old: int) -> float:
    """The chance that of all the marked ones so many or more are among the new ones, if marks were given without regard to the side.

    Fisher's exact test (1935) with the alternative that the new side has more: the upper tail of the hypergeometric distribution.
    The terms fall off from the mode on, so the sum begins at the bound that is further from it and stops where nothing is added.
    """
    marked = new_marked + old_marked
    mode = (marked + 1) * (new + 1) // (new + old + 2)

    def chance(count: int) -> float:
        return math.exp(_choose(new, count) + _choose(old, marked - count) - _choose(new + old, marked))

    if new_marked > mode:
        term, total, count = chance(new_marked), 0.0, new_marked
        while term > total * 1e-16:
            total += term
            term *= (new - count) * (marked - count) / ((count + 1) * (old - marked + count + 1))
            count += 1
        return min(total, 1.0)
    lowest = max(0, marked - old)
    if new_marked <= lowest:
        return 1.0
    count = new_marked - 1
    term, total = chance(count), 0.0
    while term > total * 1e-16:
        total += term
        term *= count * (old - marked + count) / ((new - count + 1) * (marked - count + 1))
        count -= 1
    return max(1.0 - total, 0.0)


def _choose(total: int, some: int) -> float:
    """The logarithm of the binomial coefficient."""
    return math.lgamma(total + 1) - math.lgamma(some + 1) - math.lgamma(total - some + 1)


def _counts(tally: Tally, p95: int | None, limit: float | None) -> Counts:
    return Counts(
        requests=tally.requests,
        errors=tally.errors,
        timed=tally.timed,
        above=0 if p95 is None else sum(count for time, count in tally.times.items() if time > p95),
        beyond=0 if limit is None else sum(count for time, count in tally.times.items() if time > limit),
        p95=percentile(tally),
    )


def _errors(old: Counts, new: Counts, limits: Limits, level: float) -> str:
    """Why its errors fail the new release; empty where they do not."""
    if not old.requests or not new.requests:
        return ""
    difference = 100 * (new.errors / new.requests - old.errors / old.requests)
    if difference <= limits.error_margin:
        return ""
    chance = fisher(new.errors, new.requests, old.errors, old.requests)
    if chance >= level:
        return ""
    return f"{difference:.1f} percentage points more errors ({limits.error_margin:g} are allowed, {_by_chance(chance)})"


def _latency(old: Counts, new: Counts, limit: float | None, level: float) -> str:
    """Why its p95 fails the new release; empty where it does not.

    The share of the new release's requests above the old one's p95 is held against the share of the old one's that are (about
    5 %). That this bound comes from the same requests is no fault: how many of one sample exceed an order statistic of another
    has, if both are of one distribution, whichever it is, exactly the tail that Fisher's test has (the exceedances of Gumbel and
    von Schelling 1950; the control percentile test). Equal times, counted as not above, make the test a little more cautious.
    """
    if old.p95 is None or new.p95 is None or limit is None or new.p95 <= limit:
        return ""
    chance = fisher(new.above, new.timed, old.above, old.timed)
    if chance >= level:
        return ""
    return f"its p95 is {new.p95} ms, the old one's {old.p95} ms ({limit:g} ms are allowed, {_by_chance(chance)})"


def _few(old: Counts, new: Counts, limits: Limits) -> str:
    """Which side has too few; without the old one's there is nothing to compare with."""
    sides = {"new": new.requests, "old": old.requests}
    few = [f"{count} of the {name} release" for name, count in sides.items() if count < limits.min_requests]
    return f"{' and '.join(few)}, {limits.min_requests} of each are needed" if few else ""


def _by_chance(chance: float) -> str:
    return f"by chance once in {1 / chance:.0f} times" if chance > 1e-6 else "by chance less than once in a million"


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
