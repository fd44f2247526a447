# GNU General Public License v3.0+ (see LICENSE)
"""Secrets made by the rules that they are checked by."""

from __future__ import annotations

import math
import random
import re
import string
from secrets import SystemRandom

from .model import Data
from .secrets import problem

STRENGTH = 256  # bits of randomness, where a rule leaves the length open
TRIES = 200
# None of these has a meaning in a shell, a URL, YAML, systemd's files or PgBouncer's.
PLAIN = string.ascii_letters + string.digits
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
TEMPLATE = re.compile(r"\{[{%#]")  # Ansible would fill it in


class GenerateError(Exception):
    """A rule that no text can keep."""


def generate(rule: Data, source: random.Random | None = None) -> str:
    """A new secret that passes `problem`. From the system's random numbers, unless a test brings its own."""
    source = source or SystemRandom()
    characters = _characters(rule)
    size = int(rule.get("length") or 0)
    if not size:
        size = max(int(rule.get("min_length", 0)), math.ceil(STRENGTH / math.log2(len(characters))))
    for attempt in range(TRIES):
        # Where chance does not reach the entropy that the rule asks for, each character is dealt before one comes again.
        deal = _deal if attempt >= TRIES // 2 else _draw
        value = deal(characters, size, source)
        if problem(value, rule) is None and not TEMPLATE.search(value):
            return value
    raise GenerateError(f"no text of {size} characters keeps its rule: {problem(value, rule)}")


def _characters(rule: Data) -> str:
    if "alphabet" not in rule:
        return PLAIN
    allowed = re.compile(f"[{rule['alphabet']}]")
    plain = "".join(filter(allowed.fullmatch, PLAIN))
    # Hexadecimal digits are enough; of fewer than 16 every allowed character is needed.
    found = plain if len(plain) >= 16 else "".join(filter(allowed.fullmatch, PRINTABLE))
    if len(found) < 2:
        raise GenerateError(
            f"its alphabet {rule['alphabet']} has {len(found)} printable characters, which is no choice"
        )
    return found


def _draw(characters: str, size: int, source: random.Random) -> str:
    return "".join(source.choices(characters, k=size))


def _deal(characters: str, size: int, source: random.Random) -> str:
    dealt: list[str] = []
    while len(dealt) < size:
        dealt += source.sample(characters, len(characters))
    return "".join(dealt[:size])
