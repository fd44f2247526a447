"""The closing line of the tests counts what happened."""

from __future__ import annotations

import pytest

from tests.run_all import count


@pytest.mark.parametrize(
    ("name", "status", "output", "counted"),
    [
        ("ruff", 0, "", (1, 0)),
        ("ruff", 1, "", (0, 1)),
        ("pytest unit", 0, "12 passed in 1.0s\n", (12, 0)),
        ("pytest unit", 1, "1 failed, 11 passed, 2 errors in 1.0s\n", (11, 3)),
        ("pytest unit", 0, "10 passed, 2 skipped in 1.0s\n", (10, 2)),
        ("pytest unit", 5, "no tests ran in 0.1s\n", (0, 1)),
        ("pytest unit", 2, "", (0, 1)),
    ],
)
def test_count(name: str, status: int, output: str, counted: tuple[int, int]) -> None:
    assert count(name, status, output) == counted
