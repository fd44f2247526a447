# GNU General Public License v3.0+ (see LICENSE)
"""Waiting until nobody is connected any more to the ports of a slot that gets no new requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

ESTABLISHED = "01"
INTERVAL = 0.25  # seconds


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


def drain(
    ports: Collection[int],
    *,
    timeout: float,
    quiet: float,
    read: Callable[[], str] = tables,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Returns how many are left: 0 once nobody has been connected for `quiet` seconds, more when `timeout` is over."""
    end = clock() + timeout
    since: float | None = None
    while True:
        left = connected(read(), ports)
        since = None if left else clock() if since is None else since
        if since is not None and clock() - since >= quiet:
            return 0
        if clock() >= end:
            return left
        sleep(INTERVAL)
