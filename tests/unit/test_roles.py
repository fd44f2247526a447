"""What every role keeps to: a specification equal to its defaults, few tasks, full names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selfhost.fleet.plugins.module_utils.admins.model import SUDOERS

ROLES = sorted((Path(__file__).resolve().parents[2] / "roles").iterdir())


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def options_of(role: Path) -> dict[str, dict[str, Any]]:
    """The variables in the specifications of all entry points."""
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    return {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}


def described(options: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Whether a variable, and each option within it, says what it is."""
    found = {}
    for name, option in options.items():
        found[name] = bool(option.get("description")) and bool(option.get("type"))
        found |= {f"{name}.{inner}": good for inner, good in described(option.get("options", {})).items()}
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_specification_has_the_defaults(role: Path) -> None:
    specified = {name: option["default"] for name, option in options_of(role).items() if "default" in option}
    assert (load(role / "defaults/main.yml") or {}) == specified


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_of_the_role_is_specified_and_described(role: Path) -> None:
    options = options_of(role)
    assert [name for name, good in described(options).items() if not good] == []
    # Without a default and not required, a variable would be undefined where the role uses it.
    assert [name for name, option in options.items() if option.get("required", False) is ("default" in option)] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_public_names_are_in_defaults_and_internal_ones_in_vars(role: Path) -> None:
    defaults = {name for path in role.glob("defaults/*.yml") for name in load(path) or {}}
    internal = {name for path in role.glob("vars/*.yml") for name in load(path) or {}}
    assert [name for name in defaults if not name.startswith(f"{role.name}_")] == []
    assert [name for name in internal if not name.startswith(f"__{role.name}_")] == []
    # What other roles need is the plan's: only its slice and the fleet's own variables come from outside.
    required = {name for name, option in options_of(role).items() if option.get("required")}
    assert [name for name in required if name != "fleet" and not name.startswith(("fleet_", f"{role.name}_"))] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_what_it_does_is_said_once(role: Path) -> None:
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    assert [
        name for name, spec in specs.items() if not spec.get("short_description") or not spec.get("description")
    ] == []
    # docs/reference has a page of every role, made from its specification.
    assert not (role / "README.md").exists()


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


def test_no_file_has_two_owners() -> None:
    """Two that write the same file take it from each other at every run, and one of them is never in force."""
    owners: dict[str, set[str]] = {SUDOERS: {"users"}}
    for role in ROLES:
        for path in (role / "tasks/main.yml", role / "vars/main.yml"):
            for file in re.findall(
                r"\bpath: (/etc/[^\s,}]+)[^}]*(?:template|content|vars)", path.read_text() if path.exists() else ""
            ):
                owners.setdefault(file, set()).add(role.name)
    assert len(owners) > 20
    assert {file: roles for file, roles in owners.items() if len(roles) > 1} == {}
