"""What a service leaves on a host: its own goes, data stay unless named, and nobody else's is ever touched."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.leftovers import (
    Leftovers,
    LeftoversError,
    Outcome,
    Service,
)

SERVICE = Service(
    "notes",
    components=["web"],
    users=["notes"],
    state=["/var/lib/notes"],
    certificates=["/etc/selfhost/tls/notes.test"],
)
OWN_UID = os.getuid()


class FakeRunner:
    def __init__(self, running: str = "", **failing: CommandResult) -> None:
        self.running, self.failing = running, failing
        self.ran: list[list[str]] = []

    def run(self, argv: Any, **_: Any) -> CommandResult:
        self.ran.append(list(argv))
        return self.failing.get(argv[0], CommandResult(tuple(argv), 0, self.running if argv[0] == "systemctl" else ""))

    def which(self, executable: str) -> str | None:
        return executable


@dataclasses.dataclass
class Host:
    root: Path
    runner: FakeRunner = dataclasses.field(default_factory=FakeRunner)
    # The folders of a test belong to whoever runs it; systemd gives such a user a number below 1000.
    users: dict[str, int] = dataclasses.field(default_factory=lambda: {"notes": OWN_UID, "root": 0})

    def remove(self, *, delete_data: bool = False, dry_run: bool = False) -> Outcome:
        leftovers = Leftovers(self.runner, self.root, lambda: self.users)
        return leftovers.remove(SERVICE, delete_data=delete_data, dry_run=dry_run)

    def make(self, *paths: str) -> None:
        for path in paths:
            (self.root / path).mkdir(parents=True)
            (self.root / path / "file").touch()

    def paths(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.make(
        "opt/notes/web/releases/1.0",
        "opt/notes/companions/tool/releases/2",
        "opt/other/web",
        "var/lib/notes/files",
        "var/lib/other",
        "etc/selfhost/tls/notes.test",
        "etc/selfhost/tls/other.test",
    )
    (tmp_path / "etc" / "notes").mkdir()
    return made


KEPT = {"opt/other/web/file", "var/lib/other/file", "etc/selfhost/tls/other.test/file"}


def test_its_own_goes_and_its_data_stay(host: Host) -> None:
    outcome = host.remove()
    assert host.paths() == {*KEPT, "var/lib/notes/files/file"}
    assert not (host.root / "etc" / "notes").exists()
    assert not (host.root / "opt" / "notes").exists()
    kept = {entry.what: entry for entry in outcome.kept}
    assert kept["/var/lib/notes"].command == "rm -r /var/lib/notes"
    # Whoever is made next would get its number, and the folder with it.
    assert kept["user notes"].reason == "it owns /var/lib/notes"
    assert not [argv for argv in host.runner.ran if argv[0] == "userdel"]


def test_data_go_when_they_are_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = host.remove(delete_data=True)
    assert host.paths() == KEPT
    assert "/var/lib/notes" in outcome.removed


def test_a_second_time_there_is_nothing(host: Host) -> None:
    host.remove(delete_data=True)
    host.users = {"root": 0}
    assert host.remove(delete_data=True) == Outcome()


def test_check_mode_tells_the_same_and_touches_nothing(host: Host) -> None:
    before = host.paths()
    foretold = host.remove(dry_run=True, delete_data=True)
    assert host.paths() == before
    assert host.runner.ran == []
    done = host.remove(delete_data=True)
    assert set(done.removed) - {"/etc/notes"} == set(foretold.removed)


def test_a_folder_of_another_user_is_never_removed(host: Host) -> None:
    host.users["notes"] = OWN_UID + 1
    outcome = host.remove(delete_data=True)
    assert "var/lib/notes/files/file" in host.paths()
    assert "does not belong to the service's own user" in outcome.kept[0].reason


def test_a_link_is_not_followed(host: Host) -> None:
    (host.root / "var/lib/notes").rename(host.root / "var/lib/elsewhere")
    (host.root / "var/lib/notes").symlink_to("elsewhere")
    host.remove(delete_data=True)
    assert "var/lib/elsewhere/files/file" in host.paths()


def test_what_others_have_put_beside_it_stays_and_is_named(host: Host) -> None:
    host.make("opt/notes/backup")
    (host.root / "etc/notes/mine.conf").touch()
    kept = {entry.what: entry.reason for entry in host.remove().kept}
    assert {"opt/notes/backup/file", "etc/notes/mine.conf"} <= host.paths()
    assert "backup" in kept["/opt/notes"]
    assert "mine.conf" in kept["/etc/notes"]


def test_nothing_is_removed_while_it_runs(host: Host) -> None:
    host.runner.running = "notes-web@green.service loaded active running notes web (green)\n"
    before = host.paths()
    with pytest.raises(LeftoversError, match="notes-web@green.service still runs"):
        host.remove(delete_data=True)
    assert host.paths() == before


def test_certbot_forgets_the_certificate_first(host: Host) -> None:
    host.make("etc/letsencrypt/renewal")
    (host.root / "etc/letsencrypt/renewal/selfhost-notes.test.conf").touch()
    host.remove()
    assert ["certbot", "delete", "--non-interactive", "--cert-name", "selfhost-notes.test"] in host.runner.ran


@pytest.mark.parametrize(("uid", "removed"), [(998, True), (1000, False), (0, False)])
def test_only_a_system_user_goes(host: Host, uid: int, removed: bool) -> None:
    host.make("srv")
    (host.root / "var/lib/notes").rename(host.root / "srv/moved")
    host.users["notes"] = uid
    host.remove()
    assert (["userdel", "notes"] in host.runner.ran) is removed


def test_what_fails_is_named(host: Host) -> None:
    host.users["notes"] = 998
    host.runner.failing = {"userdel": CommandResult((), 8, "", "userdel: user notes is currently used by process 7")}
    with pytest.raises(LeftoversError, match="currently used by process 7. What was removed before stays removed"):
        host.remove()
