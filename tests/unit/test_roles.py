"""What every role keeps to: a specification equal to its defaults, few tasks, full names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted((Path(__file__).resolve().parents[2] / "roles").iterdir())


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_specification_has_the_defaults(role: Path) -> None:
    defaults = load(role / "defaults/main.yml") or {}
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    specified = {name: option["default"] for name, option in options.items() if "default" in option}
    assert defaults == specified


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_names_are_the_roles_own(role: Path) -> None:
    names = {*(load(role / "defaults/main.yml") or {}), *(load(role / "vars/main.yml") or {})}
    assert [name for name in names if not name.startswith((f"{role.name}_", f"__{role.name}_"))] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_tasks_are_few_named_and_never_hide_a_failure(role: Path) -> None:
    tasks = load(role / "tasks/main.yml")
    assert len(tasks) <= 8
    for task in tasks:
        assert task.get("name") and not {"ignore_errors", "failed_when"} & set(task)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_units_are_verified_so_that_an_ignored_line_is_an_error(role: Path) -> None:
    lines = [line for path in role.glob("*/*.yml") for line in path.read_text().splitlines()]
    lenient = [line for line in lines if "systemd-analyze" in line and "--recursive-errors=no" not in line]
    assert lenient == []
