"""Which tests run, with which Python, and that the closing lines say what happened."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from tests.interpreters import find
from tests.run_all import (
    NEWEST_CONVERGES,
    ROOT,
    Project,
    Step,
    UnknownPartError,
    count,
    lanes,
    project,
    pythons_tested,
    run,
)

LINT = [
    *("ruff", "ruff format", "yamllint", "mypy", "ansible-lint"),
    *("antsibull-changelog", "changelog", "reference"),
]
ALONE = Project(current="3.11", further={}, integration=["site", "probe"], scenarios=["debian12", "debian13"])
THREE = dataclasses.replace(ALONE, further={"3.12": "/opt/python3.12", "3.13": "/opt/python3.13"})
WARNING = "[DEPRECATION WARNING]: it goes away\n"


def names(steps: list[Step]) -> list[str]:
    return [step.name for step in steps]


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
        ("pytest unit, 3.13", 0, WARNING + "12 passed in 1.0s\n", (12, 1)),
        ("molecule debian13, 3.13", 0, "ok\n", (1, 0)),
        ("molecule debian13, 3.13", 0, WARNING + "ok\n", (0, 1)),
        ("environment, 3.13", 0, "", (0, 0)),
        ("environment, 3.13", 1, "", (0, 1)),
    ],
)
def test_count(name: str, status: int, output: str, counted: tuple[int, int]) -> None:
    assert count(name, status, output) == counted


def test_one_interpreter_runs_everything() -> None:
    assert names(ALONE.steps()) == [
        *LINT,
        *("ansible-test sanity", "pytest unit", "pytest integration"),
        *("molecule debian12", "molecule debian13"),
    ]


def test_further_interpreters_run_the_unit_tests_and_the_newest_converges_a_host() -> None:
    more = [step for step in THREE.steps() if step.python != "3.11"]
    assert names(more) == [
        *("environment, 3.12", "environment, 3.13", "pytest unit, 3.12", "pytest unit, 3.13"),
        "molecule debian13, 3.13",
    ]
    assert set(names(ALONE.steps())) - set(names(THREE.steps())) == {"molecule debian13"}
    for step in more[2:]:
        assert step.command[0].startswith(f"{ROOT}/.cache/venvs/{step.python}/bin/")
    assert f"PYTHON={THREE.further['3.12']}" in more[0].command
    assert "VENV=.cache/venvs/3.12" in more[0].command


def test_the_newest_may_be_the_default() -> None:
    steps = Project(current="3.13", further={"3.9": "/opt/python3.9"}, integration=[], scenarios=["debian13"]).steps()
    assert "molecule debian13" in names(steps)


@pytest.mark.parametrize(
    ("part", "steps"),
    [
        ("lint", LINT),
        ("sanity", ["ansible-test sanity"]),
        (
            "unit",
            ["environment, 3.12", "environment, 3.13", "pytest unit", "pytest unit, 3.12", "pytest unit, 3.13"],
        ),
        ("integration", ["pytest integration"]),
        ("site", ["pytest site"]),
        ("debian12", ["molecule debian12"]),
        ("debian13", ["environment, 3.13", "molecule debian13, 3.13"]),
    ],
)
def test_a_part_alone(part: str, steps: list[str]) -> None:
    assert names(THREE.steps(part)) == steps


def test_a_part_that_there_is_not() -> None:
    with pytest.raises(
        UnknownPartError,
        match="SCENARIO=sight is none of lint, sanity, unit, integration, site, probe, debian12, debian13",
    ):
        ALONE.steps("sight")


def test_what_is_named_is_there() -> None:
    here = project()
    assert NEWEST_CONVERGES in here.scenarios
    assert here.steps("site")[0].command[-1] == "tests/integration/test_site.py"
    assert (ROOT / here.steps("site")[0].command[-1]).exists()


def test_the_closing_lines_name_every_supported_python() -> None:
    here = dataclasses.replace(THREE, further={"3.13": "/opt/python3.13"})
    versions = {"3.11": "2.19.14", "3.13": "2.21.5"}
    assert pythons_tested(here.steps(), "3.11", here.further, versions) == [
        "Python 3.11 with ansible-core 2.19.14: lint, sanity, unit, integration, debian12",
        "Python 3.12: NOT TESTED, this machine has none that can make an environment",
        "Python 3.13 with ansible-core 2.21.5: unit, debian13",
    ]
    assert pythons_tested(here.steps("lint"), "3.11", here.further, versions)[2] == "Python 3.13: no part of this run"


def test_a_step_is_shown_without_colours_and_its_environment_comes_first(
    tmp_path: Path,
) -> None:
    script = f'echo "{WARNING.strip()}"; for i in $(seq 100); do echo $i; done; echo "$NO_COLOR $PATH"; exit 3'
    step = Step(name="x", part="x", python="3.11", command=("sh", "-c", script))
    seen: list[str] = []
    status, output = run(step, tmp_path, seen.append)
    assert status == 3
    assert output.startswith(WARNING)
    assert output.splitlines()[-1].startswith(f"1 {tmp_path}/bin:")
    assert len(seen) == 102


def test_a_tool_that_is_missing_fails_its_step(tmp_path: Path) -> None:
    seen: list[str] = []
    step = Step(name="x", part="x", python="3.11", command=(str(tmp_path / "none"),))
    status, output = run(step, tmp_path, seen.append)
    assert count("ruff", status, output) == (0, 1)
    assert "No such file" in seen[0]


def test_environments_come_first_and_integration_has_the_machine_for_itself() -> None:
    found = [(names(lane), width) for lane, width in lanes(THREE.steps())]
    assert found[0] == (["environment, 3.12", "environment, 3.13"], 2)
    assert found[1][1] == 3 and found[1][0][0] == "ruff" and found[1][0][-1] == "molecule debian13, 3.13"
    assert found[2] == (["pytest integration"], 1)
    assert [width for _lane, width in lanes(THREE.steps("site"))] == [1], "what it prints is shown as it comes"


def interpreter(folder: Path, script: str) -> str:
    folder.mkdir()
    (folder / "python3.13").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python3.13").chmod(0o755)
    return str(folder)


def test_an_interpreter_is_one_that_runs_and_can_make_an_environment(tmp_path: Path) -> None:
    broken = interpreter(tmp_path / "shim", "exit 127")
    other = interpreter(tmp_path / "other", "echo 3.12 /opt/python3.12")
    chosen = interpreter(tmp_path / "pyenv", '[ "$PYENV_VERSION" = 3.13 ] && echo 3.13 /opt/python 3.13')
    assert find("3.13", [str(tmp_path), broken, other, chosen]) == "/opt/python 3.13"
    assert find("3.13", [str(tmp_path), broken, other]) is None


def test_this_interpreter_is_found(tmp_path: Path) -> None:
    current = project().current
    (tmp_path / f"python{current}").symlink_to(Path(sys.executable).resolve())
    assert find(current, [str(tmp_path)])
