# GNU General Public License v3.0+ (see LICENSE)
"""A gate by a query of Prometheus, or of what speaks its query API: every value of the answer has to be within the bounds, and there has to be one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

INTERVAL = 5.0  # seconds between two questions; Prometheus itself scrapes every 15 or so
Fetch = Callable[[str], tuple[int, bytes]]  # an address -> the HTTP status and the body; OSError where nobody answers


class QueryError(Exception):
    """The question is wrong: another try has the same answer. The message is Prometheus' own."""


class NoValueError(Exception):
    """There is no value yet; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A value is right below `below` and above `above`; neither bound itself is."""

    below: float | None = None
    above: float | None = None

    def broken(self, value: float) -> str:
        """Which bound the value breaks, in words; empty where none."""
        if self.below is not None and not value < self.below:
            return f"{value:g} is not below {self.below:g}"
        if self.above is not None and not value > self.above:
            return f"{value:g} is not above {self.above:g}"
        return ""

    @property
    def words(self) -> str:
        bounds = (("above", self.above), ("below", self.below))
        return " and ".join(f"{name} {bound:g}" for name, bound in bounds if bound is not None)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    ok: bool
    words: str
    values: tuple[float, ...] = ()
    tries: int = 1


def address(url: str, query: str) -> str:
    return f"{url.rstrip('/')}/api/v1/query?{urlencode({'query': query})}"


def samples(status: int, body: bytes) -> list[tuple[str, float]]:
    """Labels and value of each series of an answer."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or answer.get("status") not in ("success", "error"):
        words = f"the answer, with the HTTP status {status}, is none of Prometheus'"
        raise QueryError(words) if 400 <= status < 500 else NoValueError(words)
    if answer["status"] == "error":
        words = f"Prometheus says: {answer.get('errorType', 'error')}: {str(answer.get('error', ''))[:500]}"
        raise (
            QueryError(words) if 400 <= status < 500 and answer.get("errorType") == "bad_data" else NoValueError(words)
        )
    try:
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind == "scalar":
            return [("", float(result[1]))]
        if kind == "vector":
            return [(_labels(series["metric"]), float(series["value"][1])) for series in result]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise NoValueError("the answer is none of Prometheus'") from error
    raise QueryError(f"the answer is a {kind}, and has to be a number or a list of series with one number each")


def judge(found: list[tuple[str, float]], bounds: Bounds) -> Verdict:
    """NoValueError where there is nothing to judge by."""
    if not found:
        raise NoValueError("the query found no data")
    for labels, value in found:
        if math.isnan(value):
            raise NoValueError(
                f"the value{labels and f' of {labels}'} is not a number, as where nothing is divided by nothing"
            )
    values = tuple(value for _labels_of, value in found)
    broken = [f"{words}{labels and f', of {labels}'}" for labels, value in found if (words := bounds.broken(value))]
    if broken:
        return Verdict(ok=False, words="; ".join(broken[:5]), values=values)
    return Verdict(ok=True, words=f"{', '.join(f'{value:g}' for value in values[:5])}: {bounds.words}", values=values)


def ask(
    fetch: Fetch,
    url: str,
    query: str,
    bounds: Bounds,
    *,
    timeout: float,
    interval: float = INTERVAL,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Verdict:
    """Asks until there is a value, which is then the verdict. None within `timeout` seconds is a failure."""
    begun = clock()
    tries = 0
    while True:
        tries += 1
        try:
            verdict = judge(samples(*fetch(address(url, query))), bounds)
            return Verdict(ok=verdict.ok, words=verdict.words, values=verdict.values, tries=tries)
        except QueryError as error:
            return Verdict(ok=False, words=str(error), tries=tries)
        except NoValueError as error:
            words = str(error)
        except OSError as error:
            words = f"nobody answers at {url}: {error}"
        if clock() - begun + interval > timeout:
            return Verdict(
                ok=False,
                words=f"{words}. Asked {tries} time{'s' if tries > 1 else ''} in {clock() - begun:.0f} s",
                tries=tries,
            )
        sleep(interval)


def _labels(metric: dict[str, Any]) -> str:
    pairs = ", ".join(f'{name}="{value}"' for name, value in sorted(metric.items()))
    return f"{{{pairs}}}" if pairs else ""
