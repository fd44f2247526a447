"""Watching: when it looks, when it ends, and whom it compares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout import gate
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.access_log import AccessLog
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.canary import Limits
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.gate import (
    GateError,
    Observation,
    observe,
    upstreams,
)

from .lines import NEW, OLD, line


def watch(
    path: Path, written: Callable[[float], list[str]], *, duration: float = 60, interval: float = 5, busy: float = 0.0
) -> tuple[Observation, list[float]]:
    """`written` says what nginx writes at each look; `busy`: seconds that a look takes. Also when it has looked."""
    now, looked = [0.0], []

    class Log(AccessLog):
        def look(self) -> None:
            looked.append(now[0])
            with path.open("a") as file:
                file.write("".join(f"{each}\n" for each in written(now[0])))
            super().look()
            now[0] += busy

    def sleep(seconds: float) -> None:
        assert seconds >= 0
        now[0] += seconds

    path.touch()
    with Log(path, 1000) as log:
        options: dict[str, Any] = {"duration": duration, "interval": interval}
        return observe(log, [OLD], [NEW], Limits(), **options, clock=lambda: now[0], sleep=sleep), looked


def good(_now: float) -> list[str]:
    return [line()] * 40 + [line(upstream=NEW)] * 10


def test_it_watches_to_the_end(tmp_path: Path) -> None:
    found, looked = watch(tmp_path / "access.log", good, duration=62)
    assert looked == [*range(0, 61, 5), 62]
    assert found.as_result() == {
        "outcome": "pass",
        "reasons": [],
        "old": {"requests": 560, "errors": 0, "timed": 560, "above": 0, "beyond": 0, "p95_ms": 10},
        "new": {"requests": 140, "errors": 0, "timed": 140, "above": 0, "beyond": 0, "p95_ms": 10},
        "latency_limit_ms": 60,
        "looks": 14,
        "elapsed": 62,
        "damaged_lines": 0,
    }


def test_a_failure_ends_it(tmp_path: Path) -> None:
    def breaks(now: float) -> list[str]:
        return good(now) if now < 30 else [line()] * 40 + [line(upstream=NEW, status=502)] * 10

    found, looked = watch(tmp_path / "access.log", breaks)
    assert (found.verdict.outcome, found.verdict.reasons, looked[-1]) == ("fail", ("errors",), 30)


def test_the_last_look_needs_less_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []
    judge = gate.judge
    monkeypatch.setattr(
        gate,
        "judge",
        lambda *sides, looks, last: (asked.append((looks, last)), judge(*sides, looks=looks, last=last))[1],
    )
    watch(tmp_path / "access.log", good, duration=20)
    assert asked == [(5, False)] * 4 + [(5, True)]


def test_one_look(tmp_path: Path) -> None:
    found, looked = watch(tmp_path / "access.log", good, duration=0)
    assert (found.verdict.outcome, looked, found.looks) == ("undecided", [0], 1)


def test_slow_looks_are_fewer_and_not_late(tmp_path: Path) -> None:
    _found, looked = watch(tmp_path / "access.log", good, duration=20, busy=7)
    assert looked == [0, 10, 20]
    _found, looked = watch(tmp_path / "access.log", good, duration=20, busy=90)
    assert looked == [0, 90]


def test_a_log_of_another_format_is_named(tmp_path: Path) -> None:
    found, _looked = watch(tmp_path / "access.log", lambda _now: ['192.0.2.1 - - "GET / HTTP/1.1" 200'] * 5, duration=5)
    assert found.verdict.outcome == "undecided"
    assert "10 lines of the log were passed over: is it in the format of the role edge?" in found.words


@pytest.mark.parametrize(("duration", "interval"), [(-1, 5), (float("inf"), 5), (10, 0), (10, float("nan"))])
def test_times_that_mean_nothing(tmp_path: Path, duration: float, interval: float) -> None:
    with pytest.raises(GateError):
        watch(tmp_path / "access.log", good, duration=duration, interval=interval)


def test_nobody_is_compared_with_himself(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=f"{OLD} is in both"):
        observe(AccessLog(tmp_path, 0), [OLD], [NEW, OLD], Limits(), duration=0, interval=1)


def looked_up(name: str, port: int) -> list[str]:
    if name != "app1":
        raise OSError(-2, "Name or service not known")
    return ["192.0.2.11", "2001:db8::11"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["192.0.2.1:80", "192.0.2.1:80"], ["192.0.2.1:80"]),
        (["[2001:DB8:0::1]:80"], ["[2001:db8::1]:80"]),
        (["app1:80"], ["192.0.2.11:80", "[2001:db8::11]:80"]),
    ],
)
def test_who_is_asked_for(given: list[str], expected: list[str]) -> None:
    assert upstreams("old", given, looked_up) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "old is empty"),
        (["192.0.2.1"], "is not host:port"),
        (["2001:db8::1:80"], "is not host:port"),
        (["192.0.2.1:0"], "is not host:port"),
        (["192.0.2.1:65536"], "is not host:port"),
        (["http://app1:80"], "is not host:port"),
        (["[app1]:80"], "no IPv6 address"),
        (["app2:80"], r"the name in 'app2:80' was not found: Name or service"),
    ],
)
def test_who_cannot_be_asked_for(given: list[str], words: str) -> None:
    with pytest.raises(GateError, match=words):
        upstreams("old", given, looked_up)
