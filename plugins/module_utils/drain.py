# GNU General Public License v3.0+ (see LICENSE)
"""Waiting until nobody is connected any more to the ports of a slot that gets no new requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

ESTABLISHED = "01"
INTERVAL = 0.25  # seconds
# As nginx calls itself. An old worker still has requests, also such as it has not passed on: it takes a whole body in before it asks anybody.
OLD_WORKER = b"nginx: worker process is shutting down"


@dataclass(frozen=True)
class Left:
    connections: int
    workers: int


def connected(tables: str, ports: Collection[int]) -> int:
    """Connections to these ports of this host, in the words of /proc/net/tcp and tcp6."""
    count = 0
    for line in tables.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[3] == ESTABLISHED and int(fields[1].rpartition(":")[2], 16) in ports:
            count += 1
    return count


def tables() -> str:
    return "".join(path.read_text() for name in ("tcp", "tcp6") if (path := Path("/proc/net") / name).exists())


def old_workers(processes: Path = Path("/proc")) -> int:
    """Workers of nginx with a configuration from before its last reload."""
    count = 0
    for path in processes.glob("[0-9]*/cmdline"):
        try:
            count += path.read_bytes().startswith(OLD_WORKER)
        except OSError:  # it has ended meanwhile
            continue
    return count


def drain(
    ports: Collection[int],
    *,
    workers: Callable[[], int] = lambda: 0,
    timeout: float,
    quiet: float,
    read: Callable[[], str] = tables,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Left:
    """Returns what is left: nothing once nobody has been connected, and no old worker there, for `quiet` seconds; something when `timeout` is over."""
    end = clock() + timeout
    since: float | None = None
    while True:
        left = Left(connected(read(), ports), workers())
        since = None if left.connections or left.workers else clock() if since is None else since
        if since is not None and clock() - since >= quiet:
            return left
        if clock() >= end:
            return left
        sleep(INTERVAL)
