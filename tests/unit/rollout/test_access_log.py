"""Reading nginx's log: what counts as what, and where to begin and go on in files that grow, rotate and break."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout import access_log
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.access_log import AccessLog, AccessLogError, Entry

from .lines import NEW, OLD, line

OTHER = "192.0.2.12:8081"


def answers(**fields: Any) -> list[tuple[str, bool, int | None]]:
    return list(Entry.of(line(**fields).encode()).answers)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [(OLD, False, 10)]),
        ({"status": 404}, [(OLD, False, 10)]),
        ({"status": 500}, [(OLD, True, None)]),
        # The upstream's own status counts, not what nginx made of it.
        ({"status": 200, "upstream_status": "503"}, [(OLD, True, None)]),
        # The client went: no error, and it has waited for so long at least.
        ({"status": 499, "upstream_status": "-", "seconds": "3.000"}, [(OLD, False, 3000)]),
        ({"status": 504, "upstream_status": "-", "seconds": "-"}, [(OLD, True, None)]),
        ({"status": 101, "seconds": "3600.000"}, [(OLD, False, None)]),
        ({"kind": "streaming", "seconds": "60.000"}, [(OLD, False, None)]),
        ({"kind": "websocket"}, [(OLD, False, None)]),
        ({"kind": "websocket", "status": 502}, [(OLD, True, None)]),
        ({"upstream": "", "upstream_status": "", "seconds": ""}, []),
        ({"upstream": "[2001:DB8:0::1]:8081"}, [("[2001:db8::1]:8081", False, 10)]),
        ({"upstream": "unix:/run/a.sock"}, [("unix:/run/a.sock", False, 10)]),
    ],
)
def test_one_upstream(fields: dict[str, Any], expected: list[Any]) -> None:
    assert answers(**fields) == expected


@pytest.mark.parametrize(
    ("upstream", "statuses", "seconds", "expected"),
    [
        (f"{NEW}, {OLD}", "502, 200", "0.001, 0.030", [(NEW, True, None), (OLD, False, 30)]),
        (f"{NEW}, {OLD}", "504, 502", "5.000, 0.001", [(NEW, True, None), (OLD, True, None)]),
        # X-Accel-Redirect: the first has answered.
        (f"{NEW} : {OLD}", "200 : 200", "0.005 : 0.030", [(NEW, False, 5), (OLD, False, 30)]),
        (f"{NEW}, {OTHER} : {OLD}", "502, 200 : 500", "0, 0.002 : 0", [(NEW, True, None), (OTHER, False, 2), (OLD, True, None)]),
        (f"{NEW} : ", "200 : ", "0.005 : ", [(NEW, False, 5)]),
        (f"{NEW}, notes", "502, 502", "0.001, 0.000", [(NEW, True, None), ("notes", True, None)]),
    ],
)  # fmt: skip
def test_several_upstreams(upstream: str, statuses: str, seconds: str, expected: list[Any]) -> None:
    assert answers(upstream=upstream, upstream_status=statuses, seconds=seconds) == expected


Log = Callable[..., AccessLog]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened: list[AccessLog] = []

    def make(since: float = 1000) -> AccessLog:
        opened.append(AccessLog(tmp_path / "access.log", since))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def write(path: Path, *lines: str, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("".join(f"{each}\n" for each in lines[:-1]) + lines[-1] + end)


def requests(log: AccessLog) -> dict[str, int]:
    log.look()
    return {name: tally.requests for name, tally in log.upstreams.items()}


def test_what_ended_before_does_not_count(tmp_path: Path, log: Log) -> None:
    write(tmp_path / "access.log", *(line(time) for time in (990, 999, 1000, 999, 1001)))
    assert requests(log(1000)) == {OLD: 2}
    # Nobody knows in which part of the second it ended.
    assert requests(log(1000.2)) == {OLD: 1}


def test_a_half_written_line_counts_when_it_has_its_end(tmp_path: Path, log: Log) -> None:
    path, whole, reader = tmp_path / "access.log", line(), log()
    write(path, line(), whole[:50], end="")
    assert requests(reader) == {OLD: 1}
    write(path, whole[50:])
    assert requests(reader) == {OLD: 2}
    assert requests(reader) == {OLD: 2}
    assert reader.damaged == 0


def test_damaged_lines_are_passed_over(tmp_path: Path, log: Log) -> None:
    path, reader = tmp_path / "access.log", log()
    broken = [
        line()[:60],
        "",
        "null",
        '{"time":5}',
        line(time=1000).replace("200", "000", 1),
        '192.0.2.1 - - "GET / HTTP/1.1" 200',
    ]
    path.write_bytes(b"\0" * 5000 + b"\n" + line(agent="x").replace("x", "\\u00e4").encode() + b"\n")
    write(path, *broken, line())
    with path.open("ab") as file:
        file.write(line(path="/X").encode().replace(b"X", b"\xff\xfe") + b"\n")
    assert requests(reader) == {OLD: 3}
    assert reader.damaged == len(broken) + 1


def test_a_block_without_lines_is_not_held(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "LONGEST", 4000)
    monkeypatch.setattr(access_log, "CHUNK", 1000)
    path, reader = tmp_path / "access.log", log()
    write(path, line(), "\0" * 9500, end="")
    assert requests(reader) == {OLD: 1}
    write(path, "\0" * 300, line())
    assert requests(reader) == {OLD: 2}


def test_it_goes_on_across_a_rotation(tmp_path: Path, log: Log) -> None:
    path, reader = tmp_path / "access.log", log()
    write(path, line())
    assert requests(reader) == {OLD: 1}
    path.rename(tmp_path / "access.log.1")
    assert requests(reader) == {OLD: 1}  # the moment without a log
    write(path, line(upstream=NEW))
    # A worker that has not opened the new one yet.
    write(tmp_path / "access.log.1", line())
    assert requests(reader) == {OLD: 2, NEW: 1}
    (tmp_path / "access.log.1").rename(tmp_path / "access.log.2")
    path.rename(tmp_path / "access.log.1")
    write(path, line(upstream=NEW))
    assert requests(reader) == {OLD: 2, NEW: 2}


def test_it_begins_in_the_log_of_before(tmp_path: Path, log: Log) -> None:
    write(tmp_path / "access.log.1", line(900), line(1000))
    write(tmp_path / "access.log", line(1001))
    assert requests(log()) == {OLD: 2}


def test_rotated_while_it_was_opened(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it has looked for the former log, and before it opens the one of now."""
    path = tmp_path / "access.log"
    write(path, line())
    stat = Path.stat

    def rotate(asked: Path, **options: Any) -> os.stat_result:
        if asked == path and not path.with_name("access.log.1").exists():
            path.rename(tmp_path / "access.log.1")
            write(path, line(upstream=NEW))
        return stat(asked, **options)

    monkeypatch.setattr(Path, "stat", rotate)
    reader = log()
    assert requests(reader) == {OLD: 1, NEW: 1}


def test_it_was_emptied(tmp_path: Path, log: Log) -> None:
    path, reader = tmp_path / "access.log", log()
    write(path, line(), line())
    assert requests(reader) == {OLD: 2}
    path.write_text("")
    write(path, line(upstream=NEW))
    assert requests(reader) == {OLD: 2, NEW: 1}


@pytest.mark.parametrize("since", [0, 500, 2000, 4999, 5000, 6000])
@pytest.mark.parametrize("broken", [range(2500, 2600), range(1300, 1400)], ids=["where it is entered", "elsewhere"])
def test_a_large_log_is_entered_where_it_begins(
    broken: range, since: int, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a second, with some out of order, and a stretch that nobody can read."""
    monkeypatch.setattr(access_log, "BLOCK", 2000)
    monkeypatch.setattr(access_log, "LONGEST", 2000)
    times = [time - 3 * (time % 7 == 0) for time in range(1, 5001)]
    write(
        tmp_path / "access.log", *("x" * 200 if number in broken else line(time) for number, time in enumerate(times))
    )
    expected = sum(time >= since for number, time in enumerate(times) if number not in broken)
    assert requests(log(since)) == ({OLD: expected} if expected else {})


def test_what_is_old_is_not_read(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "access.log"
    write(path, *(line(time / 10) for time in range(20_000)))
    read: list[bytes] = []
    of = Entry.of
    monkeypatch.setattr(access_log.Entry, "of", lambda text: (read.append(text), of(text))[1])
    reader = log(1990)
    assert requests(reader) == {OLD: 100}
    assert len(read) < 1000
    assert reader.damaged == 0  # it began within a line, which is none of its own


def test_no_log(log: Log, tmp_path: Path) -> None:
    with pytest.raises(AccessLogError, match=r"access\.log does not exist.*is log right"):
        log().look()
    (tmp_path / "access.log").mkdir()
    with pytest.raises(AccessLogError, match="is a directory"):
        log().look()


def test_several_upstreams_are_one_side(tmp_path: Path, log: Log) -> None:
    write(tmp_path / "access.log", line(), line(upstream=OTHER, status=500), line(seconds="0.3"))
    reader = log()
    reader.look()
    side = reader.of([OLD, OTHER, "192.0.2.99:1"])
    assert (side.requests, side.errors, side.timed, dict(side.times)) == (3, 1, 2, {10: 1, 300: 1})
    assert reader.upstreams[OLD].requests == 2  # adding up has changed nothing
