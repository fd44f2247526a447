# GNU General Public License v3.0+ (see LICENSE)
"""One rehearsal at a time on a host, and none that nobody waits for."""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = Path("/run/lock/selfhost-rehearsal")


class RehearsalError(Exception):
    """A rehearsal that could not take place; what to do is in the message."""


def wanted_no_more(stream: int = 1) -> bool:
    """Whether nobody reads what this process writes there: its controller was killed, or the connection to it has gone."""
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _stream, event in poll.poll(0))


@contextmanager
def alone(
    timeout: float,
    path: Path = LOCK,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """One at a time on a host: each clears away what it finds of others. One that was cut off may not have noticed yet, and is waited for."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = clock() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() >= until:
                    raise RehearsalError(
                        f"another one has been going on for {timeout:g} s. Wait for it, and run again; fuser {path} says which process it is"
                    ) from None
                sleep(0.2)
        yield
    finally:
        os.close(descriptor)
