"""Secrets made, kept and changed: the encrypted file on the controller, and a service that serves while one of its secrets changes."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.constants import DEFAULT_VAULT_IDENTITY
from ansible.parsing.vault import VaultLib, VaultSecret
from fleetbed.constant import asked_constantly
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Ansible, Run
from fleetbed.service import VERSION, VERSIONS, fluxbase

PLAYBOOKS = REPOSITORY / "playbooks"
NAMES = {"FLUXBASE_AUTH_JWT_SECRET", "FLUXBASE_ENCRYPTION_KEY", "FLUXBASE_DATABASE_PASSWORD"}
DATABASE = "fluxbase.FLUXBASE_DATABASE_PASSWORD"
VAULT = VaultLib([(DEFAULT_VAULT_IDENTITY, VaultSecret(b"a vault's password"))])


@dataclasses.dataclass
class Fleet:
    """An inventory with an encrypted file, and the one host in it."""

    ansible: Ansible
    host: Host
    client: Host
    variables: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.ansible.folder

    @property
    def file(self) -> Path:
        return self.folder / "group_vars" / "all" / "secrets.yml"

    def run(self, playbook: str, *, secret: str = "", vault: bool = True, **options: Any) -> Run:
        words = list(options.pop("options", []))
        if vault:
            words += ["--vault-password-file", str(self.folder / "vault-password")]
        if secret:
            words += ["--extra-vars", f"secret={secret}"]
        variables = {**self.variables, **options.pop("changes", {})}
        groups = {name: [self.host] for name in ("edge", "postgres", "fluxbase")}
        return self.ansible.playbook(
            PLAYBOOKS / f"{playbook}.yml", [self.host], groups=groups, variables=variables, options=words, **options
        )

    def text(self) -> str:
        return VAULT.decrypt(self.file.read_bytes()).decode()

    def edit(self, text: str) -> None:
        """As `ansible-vault edit` does."""
        self.file.write_bytes(VAULT.encrypt(text))

    def values(self) -> dict[str, str]:
        return dict(yaml.safe_load(self.text())["fleet_secrets"]["fluxbase"])

    def logs_in(self, user: str, password: str, port: int = 6432) -> bool:
        """From the service's host over TCP, as it does itself; the password is not among the arguments of a process."""
        found = self.host.root(
            f"read -r PGPASSWORD; export PGPASSWORD; psql -XAtc 'SELECT current_user' "
            f"'host=127.0.0.1 port={port} user={user} dbname=fluxbase'",
            stdin=f"{password}\n",
            check=False,
        )
        refused = ("password authentication failed", "no pg_hba.conf entry", "no authentication method", "SASL")
        assert found.returncode == 0 or any(words in found.stderr for words in refused), found.stderr
        return found.returncode == 0

    def running(self) -> set[str]:
        listed = "systemctl list-units --plain --no-legend --state=active 'fluxbase-server@*'"
        return {line.split()[0] for line in self.host.root(listed).stdout.splitlines()}

    def upstream(self) -> str:
        return self.host.root("grep -oE '127.0.0.1:[0-9]+' /etc/nginx/conf.d/fluxbase.conf").stdout.strip()

    def asked_constantly(self) -> AbstractContextManager[list[tuple[float, Any]]]:
        return asked_constantly(self.client, self.host.address, (self.folder / "ca" / "ca.pem").read_text())


def fleet_of(host: Host, client: Host, folder: Path, version: str = VERSION) -> Fleet:
    (folder / "vault-password").write_text("a vault's password\n")
    entry = fluxbase(version, secrets="{{ fleet_secrets.fluxbase }}")
    variables = {"fleet_local_ca_dir": str(folder / "ca"), "fleet_services": {"fluxbase": entry}}
    return Fleet(Ansible(folder), host, client, variables)


@pytest.fixture(scope="module")
def fleet(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return fleet_of(new_host("secrets", has_packages=True), client, tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def made(fleet: Fleet) -> tuple[Fleet, Run]:
    """The fleet with its secrets made."""
    return fleet, fleet.run("secrets", options=["-vvv"], diff=True)


@pytest.fixture(scope="module")
def site(made: tuple[Fleet, Run]) -> Fleet:
    """The fleet with its service running."""
    made[0].run("site")
    return made[0]


# Made


def test_the_plan_without_secrets_names_the_remedy(fleet: Fleet) -> None:
    run = fleet.run("plan", expect_failure=True)
    said = run.failed[0].result["msg"]
    assert "ansible-playbook selfhost.fleet.secrets" in said
    assert all(name in said for name in NAMES)


def test_without_a_vault_password_nothing_is_made(fleet: Fleet) -> None:
    run = fleet.run("secrets", vault=False, expect_failure=True)
    assert "--ask-vault-pass" in run.failed[0].result["msg"]
    assert not fleet.file.exists()


def test_check_mode_says_what_would_be_made(fleet: Fleet) -> None:
    run = fleet.run("secrets", check=True)
    assert set(run.of("Make what is missing").result["made"]) == {f"fluxbase.{name}" for name in NAMES}
    assert not fleet.file.exists()


def test_missing_secrets_are_made_and_pass_the_plan(made: tuple[Fleet, Run]) -> None:
    fleet, run = made
    assert set(fleet.values()) == NAMES
    assert stat.S_IMODE(fleet.file.stat().st_mode) == 0o600
    assert fleet.file.read_bytes().startswith(b"$ANSIBLE_VAULT;1.1;AES256\n")
    assert list(fleet.file.parent.iterdir()) == [fleet.file]
    assert all(name in run.output for name in NAMES), "a run that says nothing shows nothing"
    assert [name for name, value in fleet.values().items() if value in run.output] == []
    fleet.run("plan")


def test_a_second_run_leaves_the_file_as_it_is(made: tuple[Fleet, Run]) -> None:
    fleet, _run = made
    before = fleet.file.read_bytes()
    assert fleet.run("secrets").changed == []
    assert fleet.file.read_bytes() == before


def test_only_what_is_missing_is_added(made: tuple[Fleet, Run]) -> None:
    fleet, _run = made
    before = fleet.text()
    gone = next(line for line in before.splitlines() if "FLUXBASE_AUTH_JWT_SECRET" in line)
    edited = before.replace(f"{gone}\n", "    # made by hand, long ago\n") + "mine: 'odd   value'\n"
    fleet.edit(edited)
    fleet.run("secrets")
    lines = fleet.text().splitlines()
    (new,) = (line for line in lines if line not in edited.splitlines())
    assert "FLUXBASE_AUTH_JWT_SECRET" in new and new != gone
    assert [line for line in lines if line != new] == edited.splitlines()


def test_another_vault_password_is_refused(made: tuple[Fleet, Run], tmp_path: Path) -> None:
    fleet, _run = made
    before = fleet.file.read_bytes()
    (tmp_path / "other").write_text("another password\n")
    run = fleet.run(
        "secrets", vault=False, options=["--vault-password-file", str(tmp_path / "other")], expect_failure=True
    )
    assert "Decryption failed" in run.output
    assert fleet.file.read_bytes() == before


def test_a_file_that_a_folder_would_hide_is_not_hidden(made: tuple[Fleet, Run], tmp_path: Path) -> None:
    fleet, _run = made
    (tmp_path / "vault-password").write_text("a vault's password\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text("mine: here\n")
    run = dataclasses.replace(fleet, ansible=Ansible(tmp_path)).run("secrets", expect_failure=True)
    assert "all.yml would no longer be read" in run.failed[0].result["msg"]


def test_a_secret_from_a_lookup_is_not_made(made: tuple[Fleet, Run], tmp_path: Path) -> None:
    """As those of community.sops and community.hashi_vault are: a line of the inventory, filled in when it is needed."""
    fleet, _run = made
    (tmp_path / "vault-password").write_text("a vault's password\n")
    (tmp_path / "elsewhere").write_text("Zk3mT8qLw5RxB2nVcY7sJp4HfGdA9eUo")
    own = {
        "FLUXBASE_ENCRYPTION_KEY": f"{{{{ lookup('ansible.builtin.file', '{tmp_path}/elsewhere') }}}}",
        **{name: f"{{{{ fleet_secrets.fluxbase.{name} }}}}" for name in NAMES - {"FLUXBASE_ENCRYPTION_KEY"}},
    }
    fluxbase = {**fleet.variables["fleet_services"]["fluxbase"], "secrets": own}
    other = dataclasses.replace(fleet, ansible=Ansible(tmp_path), variables={"fleet_services": {"fluxbase": fluxbase}})
    other.run("secrets")
    assert set(other.values()) == NAMES - {"FLUXBASE_ENCRYPTION_KEY"}
    other.run("plan")
    (tmp_path / "elsewhere").unlink()
    before = other.file.read_bytes()
    for playbook in ("plan", "secrets"):
        said = other.run(playbook, expect_failure=True).failed[0].result["msg"]
        assert "fleet_services.fluxbase.secrets.FLUXBASE_ENCRYPTION_KEY" in said
    assert other.file.read_bytes() == before, "what is only out of reach must not be replaced"


# Changed


def rotated(site: Fleet, secret: str) -> None:
    """The secret has another value, and not one of the requests in the meantime failed."""
    name = secret.partition(".")[2]
    before = site.values()
    with site.asked_constantly() as answers:
        run = site.run("rotate", secret=secret, options=["-vvv"], diff=True)
    failed = [(begun, found) for begun, found in answers if found not in (200, 201)]
    assert len(answers) > 100
    assert failed == [], f"{len(failed)} of {len(answers)}"
    after = site.values()
    assert {each for each in before if before[each] != after[each]} == {name}
    assert "fleet_secrets_next" not in site.text()
    assert [each for each in (before[name], after[name]) if each in run.output] == []
    assert site.running() == {"fluxbase-server@blue.service"}
    assert site.upstream() == "127.0.0.1:8081"


def test_the_password_of_the_database_changes_without_a_failed_request(site: Fleet) -> None:
    old = site.values()["FLUXBASE_DATABASE_PASSWORD"]
    assert site.logs_in("fluxbase", old)
    rotated(site, DATABASE)
    new = site.values()["FLUXBASE_DATABASE_PASSWORD"]
    for port in (5432, 6432):
        assert not site.logs_in("fluxbase", old, port)
        assert not site.logs_in("fluxbase_rotation", new, port)
    assert site.logs_in("fluxbase", new)
    assert site.run("site").changed == [], "the inventory says what there is"


def test_what_the_stand_in_wrote_belongs_to_the_service(site: Fleet) -> None:
    query = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    owners = site.host.root(["runuser", "-u", "postgres", "--", "psql", "-XAtc", query, "fluxbase"]).stdout.split()
    assert owners == ["fluxbase"]


def test_another_secret_changes_without_a_failed_request(site: Fleet) -> None:
    rotated(site, "fluxbase.FLUXBASE_AUTH_JWT_SECRET")


def test_a_rotation_that_was_cut_off_is_finished_by_the_next(site: Fleet) -> None:
    old = site.values()["FLUXBASE_DATABASE_PASSWORD"]
    with site.asked_constantly() as answers:
        # It ends where the stand-in has the traffic, and the slot at home still runs.
        site.run("rotate", secret=DATABASE, options=["--extra-vars", "drain_timeout=soon"], expect_failure=True)
        assert site.upstream() == "127.0.0.1:8082"
        assert site.values()["FLUXBASE_DATABASE_PASSWORD"] == old
        begun = yaml.safe_load(site.text())["fleet_secrets_next"]["fluxbase"]["FLUXBASE_DATABASE_PASSWORD"]
        assert site.logs_in("fluxbase", old), "the old one works"
        assert site.logs_in("fluxbase_rotation", begun), "and the new one works before the old one ends"
        assert f"Finish its rotation: ansible-playbook selfhost.fleet.rotate -e secret={DATABASE}" in " ".join(
            site.run("plan").output.split()
        )
        site.run("rotate", secret=DATABASE)
    assert [found for _begun, found in answers if found not in (200, 201)] == []
    assert site.values()["FLUXBASE_DATABASE_PASSWORD"] == begun
    assert site.logs_in("fluxbase", begun)
    assert not site.logs_in("fluxbase", old)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("fluxbase.FLUXBASE_ENCRYPTION_KEY", "can be read with no other key"),
        ("fluxbase.NOSUCH", "is no secret of this fleet"),
        ("nosuch", "is no secret of this fleet"),
    ],
)
def test_what_cannot_be_rotated_is_refused(site: Fleet, secret: str, words: str) -> None:
    before = site.file.read_bytes()
    run = site.run("rotate", secret=secret, expect_failure=True)
    assert words in run.failed[0].result["msg"]
    assert site.file.read_bytes() == before


# Debian 12, with the release that has its password in an address


def test_the_password_changes_on_debian_12_without_a_failed_request(
    new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory
) -> None:
    host = new_host("secrets12", os="debian-12")
    fleet = fleet_of(host, client, tmp_path_factory.mktemp("secrets12"), VERSIONS[host.os])
    fleet.run("secrets")
    fleet.run("site")
    old = fleet.values()["FLUXBASE_DATABASE_PASSWORD"]
    assert fleet.logs_in("fluxbase", old)
    rotated(fleet, DATABASE)
    assert not fleet.logs_in("fluxbase", old)
    assert fleet.logs_in("fluxbase", fleet.values()["FLUXBASE_DATABASE_PASSWORD"])
    assert fleet.run("site").changed == []
