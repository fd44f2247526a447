# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a server runs with the settings that were written down for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import ActualSetting

# Bytes and microseconds, by PostgreSQL's own unit names.
_UNITS: dict[str, Fraction] = {
    **{name: Fraction(1024**power) for power, name in enumerate(("B", "kB", "MB", "GB", "TB"))},
    **{
        name: Fraction(value)
        for name, value in {
            "us": 1,
            "ms": 1000,
            "s": 10**6,
            "min": 60 * 10**6,
            "h": 3600 * 10**6,
            "d": 86400 * 10**6,
        }.items()
    },
}
_QUANTITY = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_TRUE = frozenset({"on", "true", "yes", "1"})
_FALSE = frozenset({"off", "false", "no", "0"})


def pending_restart(settings: Mapping[str, ActualSetting]) -> list[str]:
    return sorted(name for name, setting in settings.items() if setting.pending_restart)


def unmet(expected: Mapping[str, str], settings: Mapping[str, ActualSetting]) -> list[str]:
    """What is said for each setting that is overridden or refused; one that only waits for a restart is neither."""
    found = []
    for name, wanted in sorted(expected.items()):
        actual = settings.get(name)
        if actual is None:
            found.append(f"the server has no setting {name}")
        elif actual.pending_restart:
            continue
        elif actual.error:
            found.append(f"{name}: {actual.error} ({actual.source})")
        elif not same(wanted, actual):
            found.append(f"{name} is {actual.value} (from {actual.source}), not {wanted}")
    return found


def same(wanted: str, actual: ActualSetting) -> bool:
    if actual.kind == "bool":
        return wanted.lower() in (_TRUE if actual.value == "on" else _FALSE)
    if actual.kind in ("integer", "real"):
        left, right = _quantity(wanted, actual.unit), _quantity(actual.value, actual.unit)
        # PostgreSQL rounds to the setting's own unit.
        return left is not None and right is not None and abs(left - right) < _base(actual.unit)
    if actual.kind == "enum":
        return (
            wanted.lower() == actual.value.lower()
            or (wanted.lower() in _TRUE and actual.value == "on")
            or (wanted.lower() in _FALSE and actual.value == "off")
        )
    return wanted == actual.value


def _base(unit: str | None) -> Fraction:
    match = re.fullmatch(r"(\d*)([A-Za-z]+)", unit or "")
    if match is None or match.group(2) not in _UNITS:
        return Fraction(1, 10**6)
    return int(match.group(1) or 1) * _UNITS[match.group(2)]


def _quantity(text: str, unit: str | None) -> Fraction | None:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    number, suffix = Fraction(match.group(1)), match.group(2)
    if suffix:
        return number * _UNITS[suffix] if suffix in _UNITS else None
    return number * _base(unit) if unit else number
