#!/usr/bin/env python3
"""All tests, step by step, with one closing line that counts them: `make test` calls it.

A linter and a molecule scenario count as one test each; pytest's are counted as it says. Every step runs, whatever came before.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv" / "bin"
COUNTED = re.compile(r"(\d+) (passed|failed|error|errors|skipped)\b")


def steps() -> Iterator[tuple[str, list[str]]]:
    """Name and command of every step."""
    yield "ruff", [f"{BIN}/ruff", "check", "."]
    yield "ruff format", [f"{BIN}/ruff", "format", "--check", "."]
    yield "yamllint", [f"{BIN}/yamllint", "--strict", "."]
    yield "mypy", [f"{BIN}/mypy"]
    yield "ansible-lint", [f"{BIN}/ansible-lint", "--strict", "-q"]
    yield "pytest unit", [f"{BIN}/pytest", "-q", "-n", "2", "tests/unit", "roles/edge/tests"]
    yield "pytest integration", [f"{BIN}/pytest", "-q", "-n", "2", "--dist", "loadfile", "tests/integration"]
    for scenario in sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")):
        yield f"molecule {scenario}", [f"{BIN}/molecule", "test", "--scenario-name", scenario]


def run(command: list[str]) -> tuple[int, str]:
    """Exit status and last lines of a command whose output is passed on as it comes."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        lines = [*lines[-40:], line]
    return process.wait(), "".join(lines)


def count(name: str, status: int, output: str) -> tuple[int, int]:
    """Passed and failed of a step. A pytest run that counts nothing, or that skips, has failed."""
    if not name.startswith("pytest"):
        return (0, 1) if status else (1, 0)
    closing = [line for line in output.splitlines() if " passed" in line or " failed" in line or " error" in line][-1:]
    found: dict[str, int] = {}
    for number, word in COUNTED.findall("".join(closing)):
        found[word.removesuffix("s") if word == "errors" else word] = int(number)
    passed = found.get("passed", 0)
    failed = found.get("failed", 0) + found.get("error", 0) + found.get("skipped", 0)
    return passed, failed or (1 if status or not passed else 0)


def main() -> int:
    total_passed = total_failed = 0
    summary = []
    for name, command in steps():
        print(f"\n== {name}", flush=True)
        begin = time.monotonic()
        passed, failed = count(name, *run(command))
        summary.append(f"{name:24} {passed:5} passed {failed:3} failed {time.monotonic() - begin:7.1f} s")
        total_passed, total_failed = total_passed + passed, total_failed + failed
    print("\n" + "\n".join(summary))
    print(f"{total_passed} passed, {total_failed} failed")
    return 1 if total_failed else 0


if __name__ == "__main__":
    sys.exit(main())
