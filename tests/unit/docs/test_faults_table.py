"""The table of faults names tests that there are, and every one of test_faults.py."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TABLE = (ROOT / "docs" / "faults.md").read_text()
NAMED = set(re.findall(r"`(test_\w+)", TABLE)) - {"test_faults"}


def defined_in(pattern: str) -> set[str]:
    return {name for path in ROOT.glob(pattern) for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)}


def test_every_test_that_is_named_exists() -> None:
    assert NAMED - defined_in("tests/integration/test_*.py") - defined_in("tests/unit/test_*.py") == set()


def test_every_fault_that_is_tested_is_in_the_table() -> None:
    assert defined_in("tests/integration/test_faults.py") - NAMED == set()


def test_every_row_is_whole() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ")]
    assert len(rows) > 25
    assert [row for row in rows if row.count("|") != 6] == []
