"""What users would do while a service is rolled out, and what they would have seen. Runs on a host of their own, with python3 and python3-websockets.

    load.py requests|sockets ADDRESS DOMAIN CA_FILE REPORT STOP SOURCE,... RATE|COUNT

Both go on until the file STOP is there, and then write REPORT as JSON. SOURCE are addresses of this host: an edge has limits for each.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import random
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

THREADS = 96  # each waits for its answer, so that many may be on their way at once
WRITES = 30  # one request in so many writes a row, which every WebSocket is told of
LATE = 0.1  # seconds behind its schedule
UPLOAD = 12  # seconds that an upload takes, of as many parts
PART = 65536  # bytes
SETTLED = 3.0  # seconds in which a message has to come


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that so many per cent of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)] if ordered else 0.0


@dataclass
class Seen:
    """By a kind of request. `no_retry`: failures for a client that neither looks whether a kept connection was closed nor asks again."""

    requests: int = 0
    failed: list[tuple[float, str]] = field(default_factory=list)
    no_retry: int = 0
    late: int = 0
    seconds: list[float] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "failed": self.failed[:100],
            "failed_requests": len(self.failed),
            "failed_requests_no_retry": self.no_retry + len(self.failed),
            "late": self.late,
            "p50_seconds": round(percentile(self.seconds, 50), 4),
            "p99_seconds": round(percentile(self.seconds, 99), 4),
        }


class Users:
    """At a fixed rate: when a request is sent does not depend on when the one before was answered, as long as a thread is free."""

    def __init__(self, address: str, domain: str, authority: str, stop: Path, sources: Sequence[str]) -> None:
        self.address, self.domain, self.stop, self.sources = address, domain, stop, sources
        self.trust = ssl.create_default_context(cafile=authority)
        self.seen = {kind: Seen() for kind in ("read", "write", "upload")}
        self.lock = threading.Lock()

    def connected(self, source: str) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(self.domain, timeout=30, context=self.trust)
        plain = socket.create_connection((self.address, 443), timeout=30, source_address=(source, 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.sock = self.trust.wrap_socket(plain, server_hostname=self.domain)
        return made

    def constantly(self, thread: int, rate: float) -> None:
        """This thread's share of the requests, over a connection that is kept."""
        source = self.sources[thread % len(self.sources)]
        begin, number = time.monotonic() + thread / rate, 0
        kept: http.client.HTTPSConnection | None = None
        while not self.stop.exists():
            due = begin + number * THREADS / rate
            time.sleep(max(0.0, due - time.monotonic()))
            number += 1
            late = time.monotonic() - due > LATE
            kept = self.one("write" if (number * THREADS + thread) % WRITES == 0 else "read", kept, source, due, late)

    def one(
        self, kind: str, kept: http.client.HTTPSConnection | None, source: str, due: float, late: bool
    ) -> http.client.HTTPSConnection | None:
        """One request; the connection is for the next one."""
        closed = kept is not None and bool(select.select([kept.sock], [], [], 0)[0])
        reused, no_retry = kept is not None and not closed, int(closed)
        words = ""
        try:
            connection = kept if kept is not None and not closed else self.connected(source)
            try:
                status, closes = ask(connection, kind)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # As standard clients do: what was not answered with a byte, and may be asked twice, is.
                if not reused or kind == "write":
                    raise
                no_retry, connection = 1, self.connected(source)
                status, closes = ask(connection, kind)
            words = "" if status in (200, 201) else str(status)
        except (OSError, http.client.HTTPException) as error:
            words, closes, connection = repr(error), True, None
        with self.lock:
            seen = self.seen[kind]
            seen.requests += 1
            seen.late += late
            seen.no_retry += no_retry if not words else 0
            seen.seconds.append(time.monotonic() - due)
            seen.failed += [(time.time(), words)] if words else []
        return None if closes else connection

    def upload(self) -> None:
        """A row whose text comes part by part; one after the other."""
        while not self.stop.exists():
            begin, words = time.monotonic(), ""
            try:
                connection = self.connected(self.sources[0])
                body = json.dumps({"body": "uploaded"}).encode()
                connection.putrequest("POST", "/api/v1/items")
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(UPLOAD * PART + len(body)))
                connection.endheaders()
                for _part in range(UPLOAD):
                    connection.send(b" " * PART)
                    time.sleep(1)
                connection.send(body)
                answer = connection.getresponse()
                answer.read()
                words = "" if answer.status == 201 else str(answer.status)
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                words = repr(error)
            with self.lock:
                self.seen["upload"].requests += 1
                self.seen["upload"].seconds.append(time.monotonic() - begin)
                self.seen["upload"].failed += [(time.time(), words)] if words else []

    def run(self, rate: float) -> dict[str, Any]:
        begin = time.monotonic()
        threads = [threading.Thread(target=self.constantly, args=(number, rate)) for number in range(THREADS)]
        threads.append(threading.Thread(target=self.upload))
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        seconds = time.monotonic() - begin
        found = {kind: seen.as_data() for kind, seen in self.seen.items()}
        sent = sum(seen.requests for seen in self.seen.values())
        return {**found, "seconds": round(seconds, 1), "rate": round(sent / seconds, 1), "rate_wanted": rate}


def ask(connection: http.client.HTTPSConnection, kind: str) -> tuple[int, bool]:
    """The status, and whether the connection is closed afterwards."""
    if kind == "write":
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/api/v1/items", json.dumps({"body": "constant"}), headers)
    else:
        connection.request("GET", "/api/v1/items")
    answer = connection.getresponse()
    answer.read()
    return answer.status, bool(answer.will_close)


@dataclass
class Listener:
    """One WebSocket's life: from when to when it was open, and when messages came. Times are of the monotonic clock."""

    opened: list[float] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)
    marks: dict[int, float] = field(default_factory=dict)
    again: list[float] = field(default_factory=list)  # seconds from a drop until a message came again


def lost(listener: Listener, marks: dict[int, tuple[float, float]]) -> int:
    """Marks that were written while it listened and that it was not told of; a mark has the moments when it was sent and when it was answered."""
    ends = [*listener.dropped, float("inf")] if len(listener.dropped) < len(listener.opened) else listener.dropped
    spans = list(zip(listener.opened, ends, strict=False))
    return sum(
        1
        for number, (sent, answered) in marks.items()
        if number not in listener.marks and any(begin <= sent and answered + SETTLED < end for begin, end in spans)
    )


class Sockets:
    """WebSockets that come back as soon as they are dropped, and marks: rows by which is seen whether messages are lost."""

    def __init__(self, address: str, domain: str, authority: str, stop: Path, sources: Sequence[str]) -> None:
        self.users = Users(address, domain, authority, stop, sources)
        self.listeners: list[Listener] = []
        self.marks: dict[int, tuple[float, float]] = {}

    async def listen(self, number: int) -> None:
        from websockets.asyncio.client import connect  # noqa: PLC0415 - the other half of this file does without
        from websockets.exceptions import WebSocketException  # noqa: PLC0415

        users, me = self.users, self.listeners[number]
        source = (users.sources[number % len(users.sources)], 0)
        while not users.stop.exists():
            try:
                options = {"host": users.address, "port": 443, "ssl": users.trust, "local_addr": source}
                async with connect(f"wss://{users.domain}/realtime", server_hostname=users.domain, **options) as made:
                    await made.recv()  # that it is connected
                    me.opened.append(time.monotonic())
                    await self.receive(made, me)
                    if users.stop.exists():
                        return
            except (TimeoutError, OSError, WebSocketException):
                pass
            if len(me.opened) > len(me.dropped):
                me.dropped.append(time.monotonic())
            await asyncio.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - so that not all come at once

    async def receive(self, made: Any, me: Listener) -> None:
        waits = bool(me.dropped)
        while not self.users.stop.exists():
            try:
                message = await asyncio.wait_for(made.recv(), 1)
            except TimeoutError:
                continue
            if waits:
                me.again.append(time.monotonic() - me.dropped[-1])
                waits = False
            text = str(message)
            if (place := text.find("mark-")) >= 0:
                me.marks[int(text[place + 5 : place + 11])] = time.monotonic()

    def mark(self) -> None:
        """A row a second."""
        number = 0
        while not self.users.stop.exists():
            sent = time.monotonic()
            try:
                made = self.users.connected(self.users.sources[0])
                body = json.dumps({"body": f"mark-{number:06}"})
                made.request("POST", "/api/v1/items", body, {"Content-Type": "application/json"})
                if made.getresponse().status == 201:
                    self.marks[number] = (sent, time.monotonic())
                made.close()
            except (OSError, http.client.HTTPException):
                pass
            number += 1
            time.sleep(max(0.0, 1 - (time.monotonic() - sent)))

    async def run(self, count: int) -> dict[str, Any]:
        self.listeners = [Listener() for _number in range(count)]
        writer = threading.Thread(target=self.mark)
        writer.start()
        await asyncio.gather(*(self.listen(number) for number in range(count)))
        writer.join()
        again = [seconds for each in self.listeners for seconds in each.again]
        end = time.monotonic() - SETTLED
        marks = {number: mark for number, mark in self.marks.items() if mark[1] < end}
        return {
            "websockets": count,
            "reconnects": len(again),
            "reconnect_p50_seconds": round(percentile(again, 50), 3),
            "reconnect_p99_seconds": round(percentile(again, 99), 3),
            "marks": len(marks),
            "messages_lost_after_reconnect": sum(lost(each, marks) for each in self.listeners),
            "messages_expected": sum(len(each.marks) for each in self.listeners),
            "longest_gap_seconds": round(
                max((b - a for each in self.listeners for a, b in pairwise(sorted(each.marks.values()))), default=0.0),
                3,
            ),
        }


def main() -> None:
    what, address, domain, authority, report, stop, sources, amount = sys.argv[1:]
    given = (address, domain, authority, Path(stop), sources.split(","))
    found = Users(*given).run(float(amount)) if what == "requests" else asyncio.run(Sockets(*given).run(int(amount)))
    part = Path(f"{report}.part")
    part.write_text(json.dumps(found))
    part.rename(report)


if __name__ == "__main__":
    main()
