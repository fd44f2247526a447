# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching a new release beside the old one, until the time is over or it has failed."""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from .access_log import AccessLog
from .canary import FAIL, Limits, Verdict, judge

SHORTEST = 0.1  # seconds between two looks


class GateError(ValueError):
    """The gate as written can never open; the message names the option."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    verdict: Verdict
    looks: int
    elapsed: float  # seconds
    read: int  # lines
    damaged: int  # lines

    @property
    def words(self) -> str:
        doubt = f" {self.damaged} lines of the log were passed over: is it in the format of the role edge?"
        return self.verdict.words + (doubt if self.damaged > self.read else "")

    def as_result(self) -> dict[str, Any]:
        return {
            "outcome": self.verdict.outcome,
            "reasons": list(self.verdict.reasons),
            "old": self.verdict.old.as_result(),
            "new": self.verdict.new.as_result(),
            "latency_limit_ms": self.verdict.latency_limit,
            "looks": self.looks,
            "elapsed": round(self.elapsed, 3),
            "damaged_lines": self.damaged,
        }


def observe(
    log: AccessLog,
    old: Iterable[str],
    new: Iterable[str],
    limits: Limits,
    *,
    duration: float,
    interval: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Observation:
    """A failure ends it at once. A pass does not: what is wrong with a release may come after an hour."""
    if not 0 <= duration < math.inf:
        raise GateError(f"duration is {duration:g}; it is seconds, 0 or more.")
    if not SHORTEST <= interval < math.inf:
        raise GateError(f"interval is {interval:g}; it is seconds, {SHORTEST:g} or more.")
    old, new = set(old), set(new)
    if both := old & new:
        raise GateError(f"{', '.join(sorted(both))} is in both old and new.")
    planned = math.ceil(duration / interval) + 1
    begin = clock()
    looks = slot = 0
    while True:
        last = slot * interval >= duration
        looks += 1
        log.look()
        verdict = judge(log.of(old), log.of(new), limits, looks=planned, last=last)
        elapsed = clock() - begin
        if last or verdict.outcome == FAIL:
            return Observation(verdict=verdict, looks=looks, elapsed=elapsed, read=log.read, damaged=log.damaged)
        # Looks that would be late are left out; never are there more than those that the significance was shared among.
        slot = max(slot + 1, math.ceil(elapsed / interval))
        sleep(max(0.0, min(slot * interval, duration) - elapsed))


def _resolve(name: str, port: int) -> list[str]:
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)})


def upstreams(option: str, given: Iterable[str], resolve: Callable[[str, int], list[str]] = _resolve) -> list[str]:
    """host:port as nginx logs it: with the address, an IPv6 one in brackets. A name is looked up, as nginx does."""
    found: dict[str, None] = {}
    for text in given:
        match = re.fullmatch(r"(?:\[(?P<v6>[^][]+)\]|(?P<host>[^][:\s/]+)):(?P<port>[0-9]{1,5})", text)
        if not match or not 0 < int(match["port"]) < 65536:
            raise GateError(f"{option}: {text!r} is not host:port, as in 192.0.2.1:8081 or [2001:db8::1]:8081.")
        name, port = match["v6"] or match["host"], int(match["port"])
        try:
            addresses = [str(ip_address(name))]
        except ValueError:
            if match["v6"]:
                raise GateError(f"{option}: {text!r} has no IPv6 address in its brackets.") from None
            try:
                addresses = resolve(name, port)
            except OSError as error:
                raise GateError(f"{option}: the name in {text!r} was not found: {error.strerror}.") from error
        for address in addresses:
            found[f"[{address}]:{port}" if ":" in address else f"{address}:{port}"] = None
    if not found:
        raise GateError(f"{option} is empty: there is nothing to compare.")
    return list(found)
