"""When a release is judged worse; also by the frequency of wrong judgements, over many rollouts by a fixed seed."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.access_log import Tally, together
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.canary import (
    Limits,
    LimitsError,
    Verdict,
    fisher,
    judge,
    percentile,
)


def side(requests: int, errors: int = 0, *, milliseconds: int = 20) -> Tally:
    """All of the same time, but a tenth which takes twice as long."""
    timed = requests - errors
    times = Counter({milliseconds: timed - timed // 10, 2 * milliseconds: timed // 10})
    return Tally(requests=requests, errors=errors, times=+times)


def exact(new_marked: int, new: int, old_marked: int, old: int) -> float:
    marked = new_marked + old_marked
    ways = sum(math.comb(new, n) * math.comb(old, marked - n) for n in range(new_marked, min(marked, new) + 1))
    return ways / math.comb(new + old, marked)


def test_fisher_by_whole_numbers() -> None:
    for new in (1, 4, 9):
        for old in (1, 7, 12):
            for a in range(new + 1):
                for b in range(old + 1):
                    assert fisher(a, new, b, old) == pytest.approx(exact(a, new, b, old), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "table", [(30, 200, 150, 3000), (0, 50, 3, 800), (55, 1000, 500, 10_000), (12, 240, 3, 4000), (3, 3, 0, 2000)]
)
def test_fisher_of_larger_numbers(table: tuple[int, int, int, int]) -> None:
    assert fisher(*table) == pytest.approx(exact(*table), rel=1e-8)


def test_fisher_of_the_lady_tasting_tea() -> None:
    assert fisher(3, 4, 1, 4) == pytest.approx(17 / 70)


def test_fisher_of_millions() -> None:
    assert fisher(50_000, 1_000_000, 500_000, 10_000_000) == pytest.approx(0.5, abs=0.01)
    assert fisher(60_000, 1_000_000, 500_000, 10_000_000) < 1e-100
    assert fisher(40_000, 1_000_000, 500_000, 10_000_000) == pytest.approx(1)


def test_a_percentile_is_a_time_that_was_measured() -> None:
    assert percentile(Tally()) is None
    assert percentile(Tally(times=Counter({7: 1}))) == 7
    assert percentile(Tally(times=Counter(range(1, 101)))) == 95
    assert percentile(Tally(times=Counter(range(1, 21)))) == 19
    assert percentile(Tally(times=Counter(range(1, 22)))) == 20  # 19.95 rounded up


def test_a_good_one_passes() -> None:
    verdict = judge(side(4000, 4), side(200), Limits())
    assert (verdict.outcome, verdict.reasons) == ("pass", ())
    assert (
        "New: 200 requests, 0 errors (0.0 %), p95 40 ms. Old: 4000 requests, 4 errors (0.1 %), p95 40 ms"
        in verdict.words
    )
    assert verdict.new.as_result() == {
        "requests": 200, "errors": 0, "timed": 200, "above": 0, "beyond": 0, "p95_ms": 40,
    }  # fmt: skip


def test_errors_fail_it_before_there_are_enough_requests() -> None:
    verdict = judge(side(1000, 1), side(12, 6), Limits())
    assert (verdict.outcome, verdict.reasons) == ("fail", ("errors",))
    assert "49.9 percentage points more errors (1 are allowed, by chance less than once in a million" in verdict.words


def test_one_error_of_a_few_is_no_evidence() -> None:
    assert judge(side(1000, 10), side(5, 1), Limits()).outcome == "undecided"


def test_what_does_not_matter_does_not_fail_it_however_certain() -> None:
    old, new = side(1_000_000, 1000), side(1_000_000, 10_000)
    assert fisher(10_000, 1_000_000, 1000, 1_000_000) < 1e-100
    assert judge(old, new, Limits()).outcome == "pass"
    assert judge(old, new, Limits(error_margin=0.5)).reasons == ("errors",)


def test_what_matters_does_not_fail_it_while_it_may_be_chance() -> None:
    old, new = side(200, 2), side(200, 6)
    assert judge(old, new, Limits()).outcome == "pass"
    assert judge(old, new, Limits(significance=0.5)).outcome == "fail"


def test_fewer_errors_pass() -> None:
    assert judge(side(1000, 200), side(1000, 1), Limits()).outcome == "pass"


@pytest.mark.parametrize(
    ("milliseconds", "reasons"),
    # The old p95 is 200: 300 and 250 are the bounds, the further one counts.
    [(100, ()), (150, ()), (151, ("latency",))],
)
def test_latency_by_its_factor(milliseconds: int, reasons: tuple[str, ...]) -> None:
    verdict = judge(side(1000, milliseconds=100), side(1000, milliseconds=milliseconds), Limits())
    assert verdict.reasons == reasons
    assert verdict.latency_limit == 300


@pytest.mark.parametrize(("milliseconds", "outcome"), [(30, "pass"), (31, "fail")])
def test_latency_by_its_floor(milliseconds: int, outcome: str) -> None:
    """From 10 ms to 60 is six times as much, and nobody's loss."""
    verdict = judge(side(1000, milliseconds=5), side(1000, milliseconds=milliseconds), Limits())
    assert verdict.outcome == outcome
    assert verdict.new.beyond == (100 if outcome == "fail" else 0)


def test_slow_by_chance() -> None:
    """p95 of few: one slow one is enough for it, and says nothing."""
    new = together([side(9), Tally(requests=1, times=Counter({5000: 1}))])
    verdict = judge(side(1000), new, Limits(min_requests=10))
    assert (verdict.outcome, verdict.new.p95, verdict.new.above) == ("pass", 5000, 1)


def test_latency_fails_it_early() -> None:
    assert judge(side(1000), side(20, milliseconds=500), Limits()).reasons == ("latency",)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (side(1000), side(99), r"99 of the new release, 100 of each"),
        (side(99), side(1000), r"99 of the old release, 100 of each"),
        (side(0), side(0), r"0 of the new release and 0 of the old release"),
        # Without an old side nothing can be said, however bad the new one is.
        (side(0), side(1000, 1000), r"0 of the old release"),
    ],
)
def test_undecided(old: Tally, new: Tally, words: str) -> None:
    verdict = judge(old, new, Limits())
    assert verdict.outcome == "undecided"
    assert words in verdict.words


def test_nothing_but_websockets() -> None:
    verdict = judge(Tally(requests=1000), Tally(requests=1000), Limits())
    assert verdict.outcome == "pass"
    assert "Too few times to compare the p95 by: 0 of the new release" in verdict.words
    assert (verdict.latency_limit, verdict.new.p95) == (None, None)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min_requests": 0}, "min_requests is 0"),
        ({"significance": 0.0}, "significance is 0"),
        ({"significance": 1.0}, "significance is 1"),
        ({"error_margin": -1.0}, "error_margin is -1"),
        ({"latency_factor": 0.9}, r"latency_factor is 0\.9"),
        ({"latency_floor": math.nan}, "latency_floor is nan"),
    ],
)
def test_limits_that_mean_nothing(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(LimitsError, match=words):
        Limits(**limits)


def test_the_significance_is_spent_once() -> None:
    limits = Limits(significance=0.04)
    for looks in (1, 2, 61):
        spent = 2 * ((looks - 1) * limits.level(looks, last=False) + limits.level(looks, last=True))
        assert spent == pytest.approx(0.04)
    assert limits.level(61, last=False) < limits.level(61, last=True) == 0.01


# Rollouts by dice. Limits without a margin, so that the tests alone decide.
BARE = {"error_margin": 0.0, "latency_factor": 1.0, "latency_floor": 0.0}
LOOKS = 20
Request = Callable[[random.Random], tuple[bool, int]]


def request(errors: float, milliseconds: float) -> Request:
    """Times are spread as services' are: log-normal, many equal ones among them."""
    return lambda dice: (dice.random() < errors, round(dice.lognormvariate(math.log(milliseconds), 0.6)))


def rollout(
    dice: random.Random, limits: Limits, new: Request, *, corrected: bool = True, per_look: int = 15
) -> Verdict:
    sides = (Tally(), Tally())
    for look in range(1, LOOKS + 1):
        for tally, source, count in ((sides[0], request(0.02, 15), 4 * per_look), (sides[1], new, per_look)):
            for _request in range(count):
                error, milliseconds = source(dice)
                tally.add(error=error, milliseconds=None if error else milliseconds)
        last = look == LOOKS
        verdict = judge(*sides, limits, looks=LOOKS, last=last) if corrected else judge(*sides, limits)
        if verdict.outcome == "fail" or last:
            return verdict
    raise AssertionError


def share_failed(runs: int, limits: Limits, new: Request, **options: Any) -> float:
    dice = random.Random(20260131)
    return sum(rollout(dice, limits, new, **options).outcome == "fail" for _run in range(runs)) / runs


def test_false_alarms_stay_below_the_significance_over_all_looks() -> None:
    limits = Limits(significance=0.1, **BARE)
    same = request(0.02, 15)
    assert share_failed(200, limits, same) <= 0.1
    # What the correction is for: without it the simulation shows many more.
    assert share_failed(200, limits, same, corrected=False) > 0.15


def test_with_the_limits_of_every_day_nobody_is_woken() -> None:
    assert share_failed(200, Limits(), request(0.02, 15)) <= 0.01


@pytest.mark.parametrize("new", [request(0.12, 15), request(0.02, 60)], ids=["errors", "latency"])
def test_a_clearly_worse_one_is_seen(new: Request) -> None:
    assert share_failed(40, Limits(), new) >= 0.95


def test_a_broken_one_is_seen_at_once() -> None:
    """Within 15 requests, where a bare number of requests would have waited for 100."""
    dice = random.Random(7)
    verdicts = [rollout(dice, Limits(), request(0.6, 15), per_look=5) for _run in range(20)]
    assert {verdict.reasons for verdict in verdicts} <= {("errors",), ("errors", "latency")}
    assert sum(verdict.new.requests <= 15 for verdict in verdicts) >= 18


def test_more_evidence_never_helps_a_release() -> None:
    chances = [fisher(errors, 100, 10, 1000) for errors in range(0, 101, 5)]
    assert all(later <= former for former, later in pairwise(chances))
