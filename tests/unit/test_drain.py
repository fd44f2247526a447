"""When a slot has nobody left who is connected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.drain import (
    OLD_WORKER,
    Left,
    connected,
    drain,
    old_workers,
)

# 8081 is 1F91. 0A is a listener, 06 a closed one in its time of waiting.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0100007F:1F91 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0100007F:C350 0100007F:1F91 01 00000000:00000000 00:00000000 00000000     0        0 3
   3: 0100007F:1F91 0100007F:C351 06 00000000:00000000 00:00000000 00000000     0        0 4
   0: 00000000000000000000000001000000:1F91 00000000000000000000000001000000:C352 01 00000000:00000000 00:00000000 0 0 0 5
"""
QUIET = TABLE.splitlines()[0]


def drained(
    read: Callable[[float], str],
    *,
    timeout: float = 30,
    quiet: float = 1,
    workers: Callable[[float], int] = lambda _now: 0,
) -> tuple[Left, float]:
    """What is left, and the seconds that it took by a clock of its own."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    left = drain(
        {8081},
        timeout=timeout,
        quiet=quiet,
        workers=lambda: workers(now[0]),
        read=lambda: read(now[0]),
        clock=lambda: now[0],
        sleep=sleep,
    )
    return left, now[0]


def test_only_established_connections_to_the_port_count() -> None:
    assert connected(TABLE, {8081}) == 2
    assert connected(TABLE, {8082}) == 0


def test_it_waits_until_nobody_has_been_there_for_a_while() -> None:
    assert drained(lambda now: TABLE if now < 5 else QUIET) == (Left(0, 0), 6.0)


def test_one_who_comes_back_begins_it_anew() -> None:
    assert drained(lambda now: TABLE if now < 5 or 5.5 <= now < 7 else QUIET) == (Left(0, 0), 8.0)


def test_when_the_time_is_over_it_says_how_many_are_left() -> None:
    assert drained(lambda now: TABLE) == (Left(2, 0), 30.0)


def test_an_edge_is_waited_for_while_an_old_worker_takes_an_upload_in() -> None:
    assert drained(lambda _now: QUIET, workers=lambda now: int(now < 12)) == (Left(0, 0), 13.0)
    assert drained(lambda _now: QUIET, workers=lambda _now: 1) == (Left(0, 1), 30.0)


def test_old_workers_are_known_by_what_nginx_calls_them(tmp_path: Path) -> None:
    for number, name in enumerate(
        (OLD_WORKER + b"\0", b"nginx: worker process\0", b"nginx: master process /usr/sbin/nginx\0", b"")
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes(name)
    assert old_workers(tmp_path) == 1
