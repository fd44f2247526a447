"""What Prometheus answers, and what that means for a gate."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.prometheus import (
    Bounds,
    NoValueError,
    QueryError,
    Verdict,
    address,
    ask,
    judge,
    samples,
)

LOW = Bounds(below=0.01)


def vector(*values: object, **labels: str) -> bytes:
    result = [{"metric": labels, "value": [1700000000.1, str(value)]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def error(kind: str, words: str) -> bytes:
    return json.dumps({"status": "error", "errorType": kind, "error": words}).encode()


def of_kind(kind: str, result: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


def test_the_query_is_a_part_of_the_address() -> None:
    assert (
        address("https://prom.test/base/", 'up{slot="green"} + 1')
        == "https://prom.test/base/api/v1/query?query=up%7Bslot%3D%22green%22%7D+%2B+1"
    )


def test_values() -> None:
    assert samples(200, vector(0.5, slot="green", job="x")) == [('{job="x", slot="green"}', 0.5)]
    assert samples(200, of_kind("scalar", [1700000000, "+Inf"])) == [("", math.inf)]
    assert samples(200, vector()) == []


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, error("bad_data", "parse error: unexpected {"), QueryError, "bad_data: parse error: unexpected {"),
        (503, error("timeout", "query timed out"), NoValueError, "timeout: query timed out"),
        (502, b"<html>", NoValueError, "HTTP status 502"),
        (404, b"<html>", QueryError, "HTTP status 404"),
        (200, b"[]", NoValueError, "none of Prometheus'"),
        (200, of_kind("vector", [{"metric": {}}]), NoValueError, "none of Prometheus'"),
        (200, of_kind("vector", None), NoValueError, "none of Prometheus'"),
        (200, of_kind("matrix", []), QueryError, "is a matrix, and has to be"),
        (200, of_kind("string", [1, "x"]), QueryError, "is a string, and has to be"),
    ],
)
def test_what_is_no_value(status: int, body: bytes, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words.replace("{", r"\{")):
        samples(status, body)


@pytest.mark.parametrize(
    ("bounds", "value", "words"),
    [
        (LOW, 0.004, "0.004: below 0.01"),
        (Bounds(above=1), math.inf, "inf: above 1"),
        (Bounds(above=0.9, below=1.1), 1.0, "1: above 0.9 and below 1.1"),
    ],
)
def test_within_the_bounds(bounds: Bounds, value: float, words: str) -> None:
    assert judge([("", value)], bounds) == Verdict(ok=True, words=words, values=(value,))


@pytest.mark.parametrize(
    ("bounds", "value", "words"),
    [
        (LOW, 0.01, "0.01 is not below 0.01"),
        (LOW, math.inf, "inf is not below 0.01"),
        (Bounds(above=0.0), 0.0, "0 is not above 0"),
        (Bounds(above=0.9, below=1.1), 2.0, "2 is not below 1.1"),
    ],
)
def test_beyond_the_bounds(bounds: Bounds, value: float, words: str) -> None:
    assert judge([("", value)], bounds) == Verdict(ok=False, words=words, values=(value,))


def test_one_series_that_is_wrong_is_enough_and_is_named() -> None:
    found = judge([('{host="app1"}', 0.001), ('{host="app2"}', 0.2)], LOW)
    assert (found.ok, found.words) == (False, '0.2 is not below 0.01, of {host="app2"}')


@pytest.mark.parametrize(
    ("found", "words"),
    [([], "found no data"), ([('{host="app1"}', math.nan)], 'of {host="app1"} is not a number')],
)
def test_without_a_value_there_is_no_verdict(found: list[tuple[str, float]], words: str) -> None:
    with pytest.raises(NoValueError, match=words.replace("{", r"\{")):
        judge(found, LOW)


class Server:
    """Answers one after the other, the last one for ever; an exception is raised. Its time passes by sleeping alone."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.now = 0.0

    def __call__(self, _address: str) -> tuple[int, bytes]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (200, answer)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, timeout: float = 60) -> Verdict:
        return ask(
            self, "http://prom.test", "q", LOW, timeout=timeout, interval=5, clock=lambda: self.now, sleep=self.sleep
        )


def test_the_first_value_counts_whichever_it_is() -> None:
    for value, ok in ((0.001, True), (0.5, False)):
        server = Server(vector(value))
        assert (server.ask().ok, server.ask().tries, server.now) == (ok, 1, 0.0)


def test_data_may_come_later() -> None:
    server = Server(OSError("refused"), (503, error("timeout", "busy")), vector(), vector("NaN"), vector(0.001))
    found = server.ask()
    assert (found.ok, found.tries, server.now) == (True, 5, 20.0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (vector(), "the query found no data. Asked 13 times in 60 s"),
        (vector("NaN"), "is not a number, as where nothing is divided by nothing. Asked 13 times in 60 s"),
        (OSError("connection refused"), "nobody answers at http://prom.test: connection refused. Asked 13 times"),
        ((503, error("unavailable", "starting")), "Prometheus says: unavailable: starting. Asked 13 times"),
    ],
)
def test_no_data_is_no_pass(answer: Any, words: str) -> None:
    server = Server(answer)
    found = server.ask()
    assert not found.ok and words in found.words
    assert server.now == 60.0


def test_a_wrong_question_is_not_asked_again() -> None:
    server = Server((400, error("bad_data", "parse error")))
    assert server.ask() == Verdict(ok=False, words="Prometheus says: bad_data: parse error", tries=1)


def test_with_little_time_it_is_asked_once() -> None:
    server = Server(vector())
    assert (server.ask(timeout=1).tries, server.now) == (1, 0.0)
