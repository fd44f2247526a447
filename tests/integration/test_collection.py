"""The collection as its users get it: built, installed, and run by its full name with no checkout in sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(folder: Path, *command: str, expect: int = 0, **variables: str) -> str:
    (folder / "ansible.cfg").touch()  # not the checkout's
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_NOCOLOR": "1",
        **variables,
    }
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=folder,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    run(folder, "ansible-galaxy", "collection", "build", "--output-path", str(folder), str(ROOT))
    (archive,) = folder.glob("selfhost-fleet-*.tar.gz")
    run(folder, "ansible-galaxy", "collection", "install", "--no-cache", str(archive))
    return folder


def test_the_installed_plan_refuses_an_inventory_without_its_vault(installed: Path) -> None:
    output = run(
        installed,
        "ansible-playbook",
        "--inventory",
        str(ROOT / "inventories/production"),
        "selfhost.fleet.plan",
        expect=2,
    )
    assert "The inventory has 7 finding(s). No host was touched." in output
    assert "fleet_services.fluxbase.secrets.FLUXBASE_AUTH_JWT_SECRET" in output


def test_the_installed_plan_is_shown(installed: Path) -> None:
    secrets = {
        "FLUXBASE_AUTH_JWT_SECRET": "hT9kQ2vLx7RmB4nWcY8sZp3JfGdA6eUoKiXrVtNbMqEwSaDyHuCj5gP1lF0zOqRs",
        "FLUXBASE_ENCRYPTION_KEY": "Zk3mT8qLw5RxB2nVcY7sJp4HfGdA9eUo",
        "FLUXBASE_DATABASE_PASSWORD": "b7f3e91c5a2d84f06e1b9c3d7a5f2e8041c6",
        "FLUXBASE_STORAGE_S3_ACCESS_KEY": "K7mQ2xRt9WvLp4Zs8YcB",
        "FLUXBASE_STORAGE_S3_SECRET_KEY": "vN3kT8qLw5RxB2nZcY7sJp4HfGdA9eUoQm6D",
    }
    given = {
        "vault_fluxbase_checksum": "sha256:" + "ab" * 32,
        "vault_deno_checksum": "sha256:" + "cd" * 32,
        "fleet_secrets": {"fluxbase": secrets},
    }
    output = run(
        installed,
        "ansible-playbook",
        "--inventory",
        str(ROOT / "inventories/production"),
        "selfhost.fleet.plan",
        "--extra-vars",
        json.dumps(given),
    )
    assert "126 for pools + 13 reserved of max_connections 200: 61 free" in output
    assert [name for name, value in secrets.items() if value in output] == []


@pytest.mark.parametrize("given", [{}, {"FLUXBASE": "", "FLUXBASE_VERSION": ""}], ids=["by hand", "by make demo"])
def test_the_embedded_inventory_is_planned(installed: Path, given: dict[str, str]) -> None:
    local = ("--inventory", str(ROOT / "inventories/local"))
    output = run(installed, "ansible-playbook", *local, "selfhost.fleet.plan", **given)
    assert "fluxbase  server     2026.3.6  blue" in output


def test_every_module_and_role_has_its_documentation(installed: Path) -> None:
    listed = run(installed, "ansible-doc", "--list", "selfhost.fleet")
    for module in sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py")):
        assert f"selfhost.fleet.{module}" in listed
        run(installed, "ansible-doc", f"selfhost.fleet.{module}")
    roles = run(installed, "ansible-doc", "--type", "role", "--list", "selfhost.fleet")
    for role in sorted(path.name for path in (ROOT / "roles").iterdir()):
        assert f"selfhost.fleet.{role}" in roles
