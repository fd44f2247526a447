"""All tests, step by step, with one closing line that counts them: `make test` calls it. With a name, that part alone.

A linter and a molecule scenario count as one test each; pytest's are counted as it says. Every step runs, whatever came before, and three at a time;
the integration tests, which fill a machine, have it for themselves at the end.
Unit tests run with every supported Python that there is, each in an environment of its own; the newest one converges a host too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.interpreters import SUPPORTED, further

ROOT = Path(__file__).resolve().parents[1]
COUNTED = re.compile(r"(\d+) (passed|failed|error|errors|skipped)\b")
DEPRECATED = "[DEPRECATION WARNING]"
SIDE_BY_SIDE = 3  # on two cores: a molecule scenario waits for its host now and then
NEWEST_CONVERGES = "debian13"  # the scenario that the newest Python runs, and with it the newest ansible-core


@dataclass(frozen=True, kw_only=True)
class Step:
    """`part` is what SCENARIO= calls it, `python` the release whose environment it runs in."""

    name: str
    part: str
    python: str
    command: tuple[str, ...]


def shown(text: str) -> None:
    print(text, end="", flush=True)


class UnknownPartError(Exception):
    """SCENARIO= names nothing that there is."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """What there is to test, and with what: `current` is the Python of .venv, `further` the others with their interpreters."""

    current: str
    further: Mapping[str, str]
    integration: Sequence[str]
    scenarios: Sequence[str]

    def environment(self, python: str) -> Path:
        """The folder of a Python's environment."""
        return ROOT / ".venv" if python == self.current else ROOT / ".cache" / "venvs" / python

    def steps(self, only: str = "") -> list[Step]:
        """Every step, or those of one part; before them, what makes the environments that they need."""
        parts = ["lint", "sanity", "unit", "integration", *self.integration, *self.scenarios]
        if only and only not in parts:
            raise UnknownPartError(f"SCENARIO={only} is none of {', '.join(parts)}")
        chosen = [step for step in self._all(only) if not only or step.part == only]
        needed = {step.python for step in chosen}
        return [self._environment_made(python) for python in self.further if python in needed] + chosen

    def _all(self, only: str) -> Iterable[Step]:
        pythons = (self.current, *self.further)
        for name, *command in (
            ("ruff", "ruff", "check", "."),
            ("ruff format", "ruff", "format", "--check", "."),
            ("yamllint", "yamllint", "--strict", "."),
            ("mypy", "mypy"),
            ("ansible-lint", "ansible-lint", "--strict", "-q"),
            ("antsibull-changelog", "antsibull-changelog", "lint"),
            ("changelog", "python", "docs/make_changelog.py", "--check"),
            ("reference", "python", "docs/make_reference.py", "--check"),
        ):
            yield self._step(name, "lint", self.current, *command)
        yield self._step("ansible-test sanity", "sanity", self.current, "python", "-m", "tests.sanity.run")
        for python in pythons:
            yield self._step("pytest unit", "unit", python, "pytest", "-q", "-n", "2", "tests/unit", "roles/edge/tests")
        if only in self.integration:
            file = f"tests/integration/test_{only}.py"
            yield self._step(f"pytest {only}", only, self.current, "pytest", "-q", file)
        else:
            # Twice the cores of a small machine: each waits for its hosts for a third of its time.
            spread = ("-n", "4", "--dist", "loadfile", "--no-loadscope-reorder")
            longest = ("--durations=40", "--durations-min=5")
            command = ("pytest", "-q", *spread, *longest, "tests/integration")
            yield self._step("pytest integration", "integration", self.current, *command)
        newest = max(pythons, key=_number)
        for scenario in self.scenarios:
            python = newest if scenario == NEWEST_CONVERGES else self.current
            yield self._step(f"molecule {scenario}", scenario, python, "molecule", "test", "--scenario-name", scenario)

    def _step(self, name: str, part: str, python: str, tool: str, *arguments: str) -> Step:
        # By its full path: a search would find the tool of .venv where another environment lacks it.
        command = (str(self.environment(python) / "bin" / tool), *arguments)
        return Step(
            name=name if python == self.current else f"{name}, {python}", part=part, python=python, command=command
        )

    def _environment_made(self, python: str) -> Step:
        folder = self.environment(python).relative_to(ROOT)
        command = (
            "make",
            "--no-print-directory",
            f"PYTHON={self.further[python]}",
            f"VENV={folder}",
            f"{folder}/ready",
        )
        return Step(name=f"environment, {python}", part="environment", python=python, command=command)


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def project() -> Project:
    """This checkout on this machine."""
    current = ".".join(str(part) for part in sys.version_info[:2])
    return Project(
        current=current,
        further=further(current, os.environ.get("PATH", os.defpath)),
        integration=sorted(
            path.stem.removeprefix("test_") for path in (ROOT / "tests" / "integration").glob("test_*.py")
        ),
        scenarios=sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")),
    )


def lanes(steps: Iterable[Step]) -> list[tuple[list[Step], int]]:
    """What runs one lane after the other, each with how many steps at a time; environments come before those who need them."""
    found: dict[str, list[Step]] = {"environment": [], "small": [], "integration": []}
    for step in steps:
        alone = step.part == "environment" or step.name.startswith("pytest integration")
        found[step.part if alone else "small"].append(step)
    widths = {"environment": 2, "small": SIDE_BY_SIDE, "integration": 1}
    return [(lane, min(widths[name], len(lane))) for name, lane in found.items() if lane]


def run(step: Step, folder: Path, show: Callable[[str], object]) -> tuple[int, str]:
    """Exit status of a step whose output is shown as it comes; and its deprecation warnings and last lines."""
    environment = {**os.environ, "PATH": f"{folder}/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    if not sys.stdout.isatty():
        environment["NO_COLOR"] = "1"  # molecule goes by TERM alone, and tells Ansible so
    try:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except OSError as error:
        show(f"{error}\n")
        return 127, ""
    deprecated: list[str] = []
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        show(line)
        deprecated += [line] if DEPRECATED in line else []
        lines = [*lines[-40:], line]
    return process.wait(), "".join(deprecated + lines)


def count(name: str, status: int, output: str) -> tuple[int, int]:
    """Passed and failed of a step. A pytest run that counts nothing, or that skips, has failed; so has what prints a deprecation."""
    bad = bool(status) or DEPRECATED in output
    if name.startswith("environment"):
        return 0, int(bad)
    if not name.startswith("pytest"):
        return (0, 1) if bad else (1, 0)
    closing = [line for line in output.splitlines() if " passed" in line or " failed" in line or " error" in line][-1:]
    found: dict[str, int] = {}
    for number, word in COUNTED.findall("".join(closing)):
        found[word.removesuffix("s") if word == "errors" else word] = int(number)
    passed = found.get("passed", 0)
    failed = found.get("failed", 0) + found.get("error", 0) + found.get("skipped", 0)
    return passed, failed or (1 if bad or not passed else 0)


def ansible_core(folder: Path) -> str:
    """The version of ansible-core in an environment."""
    found = [path.name for path in folder.glob("lib/python*/site-packages/ansible_core-*.dist-info")]
    return found[0].removeprefix("ansible_core-").removesuffix(".dist-info") if found else "(none)"


def pythons_tested(steps: Iterable[Step], current: str, has: Iterable[str], versions: Mapping[str, str]) -> list[str]:
    """A line for each Python: what it ran, with which ansible-core, or that it is not here."""
    ran: dict[str, dict[str, None]] = {}
    for step in steps:
        if step.part != "environment":
            ran.setdefault(step.python, {})[step.part] = None
    lines = []
    for python in sorted({*SUPPORTED, current}, key=_number):
        if python in ran:
            lines.append(f"Python {python} with ansible-core {versions[python]}: {', '.join(ran[python])}")
        elif python == current or python in has:
            lines.append(f"Python {python}: no part of this run")
        else:
            lines.append(f"Python {python}: NOT TESTED, this machine has none that can make an environment")
    return lines


def counted(here: Project, step: Step, width: int) -> tuple[Step, tuple[int, int], float]:
    """A step with its passed and failed and its seconds. What runs beside others shows what it printed at its end, as a whole."""
    kept: list[str] = []
    alone = width == 1
    if alone:
        print(f"\n== {step.name}", flush=True)
    begin = time.monotonic()
    found = count(step.name, *run(step, here.environment(step.python), shown if alone else kept.append))
    if not alone:
        print(f"\n== {step.name}\n{''.join(kept)}", end="", flush=True)
    return step, found, time.monotonic() - begin


def main() -> int:
    here = project()
    try:
        steps = here.steps("".join(sys.argv[1:]))
    except UnknownPartError as error:
        print(error)
        return 2
    total_passed = total_failed = 0
    summary = []
    for lane, width in lanes(steps):
        with ThreadPoolExecutor(width) as pool:
            for step, (passed, failed), seconds in pool.map(partial(counted, here, width=width), lane):
                summary.append(f"{step.name:24} {passed:5} passed {failed:3} failed {seconds:7.1f} s")
                total_passed, total_failed = total_passed + passed, total_failed + failed
    versions = {step.python: ansible_core(here.environment(step.python)) for step in steps}
    print("\n" + "\n".join(summary + pythons_tested(steps, here.current, here.further, versions)))
    print(f"{total_passed} passed, {total_failed} failed")
    return 1 if total_failed else 0


if __name__ == "__main__":
    sys.exit(main())
