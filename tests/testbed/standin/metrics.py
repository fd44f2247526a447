"""Counters in Prometheus's text format, under the names that the program exports."""

from __future__ import annotations

import threading
import time
from collections import Counter

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
Labels = tuple[tuple[str, str], ...]


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in labels)
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


class Histogram:
    """How long something took."""

    def __init__(self) -> None:
        self.counts = [0] * len(BUCKETS)
        self.total = 0.0
        self.number = 0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.number += 1
        self.total += seconds
        for index, bound in enumerate(BUCKETS):
            self.counts[index] += seconds <= bound

    def lines(self, name: str) -> list[str]:
        """Write it down."""
        rows = [_line(f"{name}_bucket", (("le", str(b)),), n) for b, n in zip(BUCKETS, self.counts, strict=True)]
        rows.append(_line(f"{name}_bucket", (("le", "+Inf"),), self.number))
        return [f"# TYPE {name} histogram", *rows, f"{name}_sum {self.total:.6f}", f"{name}_count {self.number}"]


class Metrics:
    """All counters of the process; threads may count."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.in_flight = 0
        self.requests = Histogram()
        self.queries = Histogram()
        self._lock = threading.Lock()
        self._counters: Counter[tuple[str, Labels]] = Counter()

    def count(self, name: str, **labels: str) -> None:
        """Add one."""
        with self._lock:
            self._counters[name, tuple(sorted(labels.items()))] += 1

    def query(self, seconds: float) -> None:
        """Count a database query."""
        with self._lock:
            self.queries.observe(seconds)

    def text(self, gauges: dict[str, float]) -> str:
        """Write everything down."""
        with self._lock:
            counters = dict(self._counters)
        names = {"fluxbase_http_requests_total", "fluxbase_rate_limit_hits_total", "fluxbase_auth_attempts_total"}
        lines: list[str] = []
        for name in sorted(names | {name for name, _labels in counters}):
            lines.append(f"# TYPE {name} counter")
            lines += [_line(name, labels, n) for (own, labels), n in sorted(counters.items()) if own == name]
        gauges = {
            "fluxbase_http_requests_in_flight": self.in_flight,
            "fluxbase_jobs_queue_depth": 0,
            "fluxbase_system_uptime_seconds": round(time.monotonic() - self.started, 3),
            **gauges,
        }
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        lines += self.requests.lines("fluxbase_http_request_duration_seconds")
        lines += self.queries.lines("fluxbase_db_query_duration_seconds")
        return "\n".join(lines) + "\n"
