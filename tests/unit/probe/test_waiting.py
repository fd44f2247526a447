from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.probe import ProbeResult, ProbeSpec, probe, run
from ansible_collections.selfhost.fleet.plugins.module_utils.probe.attempt import Answer

from .servers import answer, says, server


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 100.0, []  # type: float, list[float]

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds
        self.slept.append(seconds)


class Systemd:
    """A unit whose states come one after the other, the last one again and again; and its journal."""

    def __init__(self, *states: Mapping[str, Any], journal: str = "panic: no database\n", sockets: str = "") -> None:
        self.states, self.journal, self.sockets = list(states), journal, sockets
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], *, timeout: float | None = None, **_: Any) -> CommandResult:
        assert timeout
        self.asked.append(tuple(argv))
        if argv[0] == "journalctl":
            own = "--since=@1700000000" in argv
            return CommandResult(tuple(argv), 0, self.journal if own else f"an older line\n{self.journal}")
        if argv[0] == "ss":
            return CommandResult(tuple(argv), 0, self.sockets)
        if "--property=ControlGroup" in argv:
            return CommandResult(tuple(argv), 0, "/system.slice/app@blue.service\n")
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        values = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": 0, "Job": ""}
        values.update({"InactiveExitTimestamp": "@1700000000", "Result": "success", **state})
        return CommandResult(tuple(argv), 0, "".join(f"{name}={value}\n" for name, value in values.items()))

    def which(self, executable: str) -> str | None:
        return executable


OK, BAD = Answer(ok=True, words="status 200", status=200), Answer(ok=False, words="connection refused")


def wait(
    monkeypatch: pytest.MonkeyPatch, answers: str, systemd: Systemd | None = None, *, each: float = 0.0, **options: Any
) -> tuple[ProbeResult, Clock]:
    """`answers`: one + or - for each try, the last one again and again; `each`: the seconds that a try takes."""
    clock, left = Clock(), list(answers)

    def attempt(*_: Any) -> Answer:
        clock.now += each
        return OK if (left.pop(0) if len(left) > 1 else left[0]) == "+" else BAD

    monkeypatch.setattr(run, "attempt", attempt)
    spec = {"kind": "http", "url": "http://127.0.0.1:8081/health", "interval": 2, "deadline": 10, **options}
    if systemd is not None:
        spec["unit"] = "app@blue.service"
    return probe(ProbeSpec.from_mapping(spec), systemd or Systemd({}), clock), clock


def test_waits_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    result, clock = wait(monkeypatch, "---+")
    assert (result.ok, result.tries, clock.slept) == (True, 4, [2, 2, 2])
    assert result.message == "GET http://127.0.0.1:8081/health: status 200 (4 tries over 6.0 s)"


def test_the_last_try_comes_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    result, clock = wait(monkeypatch, "-", interval=4)
    assert (result.ok, result.tries, clock.slept) == (False, 4, [4, 4, 2])
    assert "failed: 4 tries over 10.0 s. Last answer: connection refused." in result.message


def test_no_try_begins_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _clock = wait(monkeypatch, "-", each=7)
    assert (result.tries, result.elapsed) == (2, 16.0)


def test_a_deadline_of_nought_is_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    result, clock = wait(monkeypatch, "-", deadline=0)
    assert (result.tries, clock.slept) == (1, [])


def test_successes_are_needed_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _clock = wait(monkeypatch, "++-+++", successes=3)
    assert (result.ok, result.tries) == (True, 6)
    result, _clock = wait(monkeypatch, "+-+-+-+-", successes=2)
    assert not result.ok
    assert "(needed: 2 right answers in a row)" in result.message


def test_one_and_two_crashes_are_systemds(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = [{"NRestarts": count, "ActiveState": "activating", "SubState": "auto-restart"} for count in (0, 1, 2)]
    result, _clock = wait(monkeypatch, "---+", Systemd({}, *crashing, {"NRestarts": 2}))
    assert result.ok, result.message


def test_a_series_of_crashes_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [{"NRestarts": count, "ActiveState": "activating", "SubState": "auto-restart"} for count in (5, 6, 7, 8)]
    result, clock = wait(monkeypatch, "-", Systemd(*states), deadline=600)
    assert (result.ok, result.tries, clock.now) == (False, 3, 104.0)
    assert (
        "Given up before the deadline of 600 s: the unit app@blue.service crashed 3 times meanwhile" in result.message
    )
    # Of the run that ended: systemd may have started it again since.
    assert result.message.endswith("The journal of app@blue.service:\n  an older line\n  panic: no database")


def test_a_start_by_hand_sets_the_counter_back(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [{"NRestarts": count} for count in (5, 0, 1, 2)]
    result, _clock = wait(monkeypatch, "-", Systemd(*states))
    assert result.tries == 6
    states = [{"NRestarts": count} for count in (5, 0, 1, 2, 3)]
    result, _clock = wait(monkeypatch, "-", Systemd(*states))
    assert result.tries == 4


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            {
                "ActiveState": "failed",
                "SubState": "failed",
                "Result": "exit-code",
                "ExecMainCode": 1,
                "ExecMainStatus": 78,
            },
            "is failed (failed, exit-code, exit status 78)",
        ),
        (
            {
                "ActiveState": "failed",
                "SubState": "failed",
                "Result": "signal",
                "ExecMainCode": 2,
                "ExecMainStatus": 11,
            },
            "is failed (failed, signal, killed by signal 11)",
        ),
        ({"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}, "is not-found"),
        ({"LoadState": "masked", "ActiveState": "inactive", "SubState": "dead"}, "is masked"),
    ],
)
def test_a_unit_that_never_will(monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], words: str) -> None:
    result, _clock = wait(monkeypatch, "-", Systemd(state))
    assert result.tries == 1
    assert words in result.message


def test_a_unit_that_has_failed_is_not_proven_by_another_process_on_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
    result, _clock = wait(monkeypatch, "+", Systemd(failed))
    assert not result.ok
    assert "Last answer: status 200, but the unit app@blue.service is failed" in result.message


def test_an_answer_counts_only_once_the_unit_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = {"ActiveState": "activating", "SubState": "start"}
    result, _clock = wait(monkeypatch, "+", Systemd(starting, starting, starting, {}))
    assert (result.ok, result.tries) == (True, 3)


def test_a_stopped_unit_that_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = {"ActiveState": "inactive", "SubState": "dead"}
    result, _clock = wait(monkeypatch, "-", Systemd(stopped), deadline=600)
    assert result.tries == 3
    assert "nothing starts it" in result.message
    result, _clock = wait(monkeypatch, "-", Systemd({**stopped, "Job": "17"}), deadline=20)
    assert result.tries == 11, "its start is queued"


def test_without_systemd_the_service_itself_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(Systemd):
        def run(self, argv: Sequence[str], **_: Any) -> CommandResult:
            return CommandResult(tuple(argv), 127, stderr="systemctl is not installed")

    result, _clock = wait(monkeypatch, "-+", Absent())
    assert result.ok
    result, _clock = wait(monkeypatch, "-", Absent())
    assert "nothing was written to it" in result.message


def test_the_journal_is_since_the_last_start_and_else_of_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"ActiveState": "failed", "SubState": "failed"}
    systemd = Systemd(failed, journal="".join(f"line {number}\n" for number in range(30)))
    result, _clock = wait(monkeypatch, "-", systemd)
    assert result.journal == tuple(f"line {number}" for number in range(15, 30))
    result, _clock = wait(monkeypatch, "-", Systemd(failed, journal=""))
    assert result.journal == ("an older line",)


def test_an_answer_from_another_unit_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "LISTEN 0 5 127.0.0.1:8080 0.0.0.0:* ino:7 sk:2 cgroup:/system.slice/old.service <-> cgroup:/"
    result, _clock = wait(monkeypatch, "+", Systemd({}, sockets=line), deadline=5)
    assert not result.ok
    assert "status 200, but it came from /system.slice/old.service, which holds the port" in result.message
    result, _clock = wait(monkeypatch, "+", Systemd({}, sockets=line.replace("old", "app@blue")), deadline=5)
    assert result.ok


def test_with_a_real_clock_and_a_real_server() -> None:
    with server(says(answer("503 Starting"), answer("503 Starting"), answer("200 OK"))) as port:
        spec = {"kind": "http", "url": f"http://127.0.0.1:{port}/", "interval": 0.01, "deadline": 5}
        result = probe(ProbeSpec.from_mapping(spec))
    assert (result.ok, result.tries) == (True, 3)
    assert 0.02 <= result.elapsed < 3
    assert result.as_result()["status"] == 200


def test_what_has_to_be_up_already_ends_after_so_many_wrong_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _clock = wait(monkeypatch, "+--+---", successes=2, failures=3, deadline=600)
    assert (result.ok, result.tries) == (False, 7)
    assert "Given up before the deadline of 600 s: 3 wrong answers in a row" in result.message
    result, _clock = wait(monkeypatch, "--++", successes=2, failures=3, deadline=600)
    assert result.ok
