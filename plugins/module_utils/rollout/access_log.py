# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How each upstream has answered, by the JSON access log that the role edge has nginx write.

A line is written when its request has ended, and its time has whole seconds. So the lines are in order but for a few seconds
(each worker has a clock of its own), and a log of gigabytes is entered by a binary search.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 16  # bytes; where the search has come down to so few, they are read
CHUNK = 1 << 20  # bytes that are read at once
# nginx takes request lines of up to 16 KiB (large_client_header_buffers), and JSON may make six bytes of one.
LONGEST = 1 << 20
SLACK = 10.0  # seconds by which a line may come after a younger one
FIRST_ERROR = 500
SWITCHED = 101  # to WebSocket
LASTING = frozenset({"streaming", "websocket"})  # kinds of routes whose time is that of a connection


class AccessLogError(Exception):
    """The log cannot be read; the message says what to do."""


@dataclass(kw_only=True)
class Tally:
    """What was asked of an upstream. `times` has a count for each number of milliseconds, which is all that nginx measures."""

    requests: int = 0
    errors: int = 0
    times: Counter[int] = field(default_factory=Counter)

    @property
    def timed(self) -> int:
        return self.times.total()

    def add(self, *, error: bool, milliseconds: int | None) -> None:
        self.requests += 1
        self.errors += error
        if milliseconds is not None:
            self.times[milliseconds] += 1


def together(tallies: Iterable[Tally]) -> Tally:
    found = Tally()
    for tally in tallies:
        found.requests += tally.requests
        found.errors += tally.errors
        found.times.update(tally.times)
    return found


@lru_cache(maxsize=256)
def seconds_of(time: str) -> float:
    """Seconds since the epoch of nginx's $time_iso8601, as in 2026-01-31T12:00:00+01:00."""
    return datetime.fromisoformat(time).timestamp()


@lru_cache(maxsize=1024)
def canonical(address: str) -> str:
    """An IPv6 address has more than one spelling, and nginx's is not Python's in every case."""
    host, bracket, port = address.partition("]")
    try:
        return f"[{IPv6Address(host[1:])}]{port}" if bracket and host.startswith("[") else address
    except ValueError:
        return address


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the log: when the request ended, and how each upstream that it was sent to answered it."""

    time: float
    answers: tuple[tuple[str, bool, int | None], ...]  # upstream, whether in error, milliseconds

    @classmethod
    def of(cls, line: bytes) -> Entry:
        """ValueError for a line that is none: half written, damaged, of another format."""
        # nginx copies what clients send; that need not be UTF-8.
        record = json.loads(line.decode("utf-8", "replace"))
        if not isinstance(record, dict) or not isinstance(record.get("time"), str):
            raise ValueError("no time")
        if not isinstance(record.get("status"), int) or not isinstance(record.get("upstream"), str):
            raise ValueError("no status, or no upstream")
        return cls(time=seconds_of(record["time"]), answers=tuple(_answers(record)))


def _answers(record: dict[str, Any]) -> Iterator[tuple[str, bool, int | None]]:
    """`a, b` is a retry: a did not answer. `a : b` are two requests after each other, as X-Accel-Redirect makes them."""
    lists = [
        [part.split(", ") for part in str(record.get(name, "")).split(" : ")]
        for name in ("upstream", "upstream_status", "upstream_seconds")
    ]
    for turn, addresses in enumerate(lists[0]):
        for number, address in enumerate(addresses):
            if not address:  # answered by nginx itself
                continue
            if number + 1 < len(addresses):
                yield canonical(address), True, None
                continue
            said, took = (_item(parts, turn, number) for parts in lists[1:])
            # None was received of one that the client gave up (499), which is the client's doing and no error.
            status = int(said) if said.isdigit() else record["status"]
            error = status >= FIRST_ERROR
            # An error's time says nothing: most are quick, and would make a broken release look fast.
            lasting = error or status == SWITCHED or record.get("kind") in LASTING
            yield canonical(address), error, None if lasting else _milliseconds(took)


def _item(parts: list[list[str]], turn: int, number: int) -> str:
    return parts[turn][number] if turn < len(parts) and number < len(parts[turn]) else ""


def _milliseconds(seconds: str) -> int | None:
    try:
        return round(float(seconds) * 1000)
    except (ValueError, OverflowError):
        return None


class _File:
    """A log that is open: it goes on being read after its name has passed to the next one."""

    def __init__(self, file: BinaryIO, since: float) -> None:
        self.file = file
        self._skip = False  # to the end of a line, whose beginning was not read
        self._offset = self._begin(since)

    def _size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def _begin(self, since: float) -> int:
        """Where to begin: every line that ends before this place is too old."""
        low, high = 0, self._size()
        while high - low > BLOCK:
            middle = (low + high) // 2
            time = self._time_after(middle, high)
            if time is not None and time < since - SLACK:
                low = middle
            else:  # also where nothing could be read: rather too much is read than too little
                high = middle
        self._skip = low > 0
        return low

    def _time_after(self, place: int, end: int) -> float | None:
        """Of the first line that begins after this place."""
        self.file.seek(place)
        _rest, *lines = self.file.read(min(end - place, LONGEST)).split(b"\n")
        for line in lines[:-1]:
            try:
                return Entry.of(line).time
            except ValueError:
                continue
        return None

    def lines(self) -> Iterator[bytes]:
        """Those that were written since the last time, as far as they have ended."""
        end = self._size()
        if end < self._offset:  # it was emptied, as logrotate's copytruncate does
            self._offset, self._skip = 0, False
        self.file.seek(self._offset)
        place, rest = self._offset, b""
        while place < end:
            chunk = self.file.read(min(CHUNK, end - place))
            if not chunk:
                break
            place += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._offset += len(line) + 1
                if self._skip:
                    self._skip = False
                else:
                    yield line
            if len(rest) > LONGEST:  # no line is so long: what a crash left
                self._offset, self._skip, rest = place, True, b""


class AccessLog:
    """Counts by upstream of all that ended at `since` (seconds since the epoch) or later; every look adds what was written after the one before."""

    def __init__(self, path: Path, since: float) -> None:
        self.path, self.since = path, since
        self.upstreams: dict[str, Tally] = {}
        self.read = 0  # lines
        self.damaged = 0
        self._files: dict[tuple[int, int], _File] = {}

    def look(self) -> None:
        while self._open():
            # Between looking at two names the log may have been rotated, and one of its files have had neither name.
            continue
        for file in self._files.values():
            for line in file.lines():
                self._count(line)

    def _open(self) -> bool:
        """Whether there was a file that is not open yet. The former log first, that it may not become the one before while the other is opened."""
        found = False
        for path in (self.path.with_name(f"{self.path.name}.1"), self.path):
            try:
                status = path.stat()
                if (status.st_dev, status.st_ino) in self._files:
                    continue
                file = path.open("rb")
            except FileNotFoundError:
                if path == self.path and not self._files:
                    raise AccessLogError(
                        f"{path} does not exist. It is where nginx of the role edge logs; is this host an edge, and is log right?"
                    ) from None
                continue  # it is being rotated
            except OSError as error:
                raise AccessLogError(f"{path} cannot be read: {os.strerror(error.errno or 0).lower()}.") from error
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino)
            if key in self._files:
                file.close()
                continue
            self._files[key] = _File(file, self.since)
            found = True
        return found

    def _count(self, line: bytes) -> None:
        try:
            entry = Entry.of(line)
        except ValueError:
            self.damaged += 1
            return
        if entry.time < self.since:
            return
        self.read += 1
        for upstream, error, milliseconds in entry.answers:
            self.upstreams.setdefault(upstream, Tally()).add(error=error, milliseconds=milliseconds)

    def of(self, upstreams: Iterable[str]) -> Tally:
        return together(self.upstreams[name] for name in upstreams if name in self.upstreams)

    def close(self) -> None:
        for file in self._files.values():
            file.file.close()

    def __enter__(self) -> AccessLog:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()
