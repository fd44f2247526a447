"""Who is made an admin, who is shut out, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.admins.host import Admins, forget_keys
from ansible_collections.selfhost.fleet.plugins.module_utils.admins.model import (
    GROUP,
    SUDOERS,
    Account,
    Admin,
    AdminsError,
    files,
    parse,
    steps,
)

from tests.unit.ssh.test_login import line, rsa
from tests.unit.transaction.host import FakeHost

NO_GROUPS: frozenset[str] = frozenset()


def entry(name: str = "alice", keys: Sequence[str] = (line(),), sudo: str = "password") -> dict[str, Any]:
    return {"name": name, "keys": list(keys), "sudo": sudo}


def admin(name: str = "alice", sudo: str = "password") -> Admin:
    return Admin(name, ("ssh-ed25519 AAAA",), sudo)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (entry("root"), "not root"),
        (entry("Alice"), "small letters"),
        (entry("alice\n"), "small letters"),
        (entry(keys=[]), "has no keys"),
        (entry(keys=["ssh-ed25519 AAAA"]), r"keys\[0\] is not one line"),
        (entry(keys=[line() + line()]), "is not one line"),
        (entry(keys=[line(), rsa(2048)]), r"keys\[1\] is weak \(ssh-rsa of 2048 bits\)"),
        (entry(keys=[line("ssh-dss", bytes(20))]), "weak"),
    ],
)
def test_mistakes(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(AdminsError, match=words):
        parse([wrong])


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(AdminsError, match=r"(?s)fleet_admins\[0\].*fleet_admins\[1\] \(bob\): listed twice") as caught:
        parse([entry("bob", keys=[]), entry("bob")])
    assert "Take" not in str(caught.value)


def test_the_files() -> None:
    spec = files(parse([entry(), entry("bob", sudo="nopasswd")]))
    held = {file.path: file for file in spec.files}
    assert held[SUDOERS].content.splitlines()[1:] == [b"alice ALL=(ALL:ALL) ALL", b"bob ALL=(ALL:ALL) NOPASSWD: ALL"]
    assert held[SUDOERS].mode == 0o440
    assert held["/etc/ssh/fleet_admins.d/alice"].content.decode() == line()
    assert files([]).files == ()


def test_a_new_admin() -> None:
    todo = steps([admin()], {}, NO_GROUPS, None)
    assert [argv[0] for argv in todo.before] == ["groupadd", "useradd"]
    assert todo.before[1][-3:] == ("--groups", GROUP, "alice") and "--user-group" in todo.before[1]
    taken = steps([admin("staff")], {}, frozenset({GROUP, "staff"}), None).before
    assert taken[0][:6] == ("useradd", "--create-home", "--shell", "/bin/bash", "--gid", "staff")


def test_an_account_that_is_there_is_taken_over() -> None:
    todo = steps([admin()], {"alice": Account("alice", 1000)}, frozenset({GROUP}), None)
    assert todo.before == (("usermod", "--append", "--groups", GROUP, "alice"),)
    with pytest.raises(AdminsError, match="account of the system"):
        steps([admin("postgres")], {"postgres": Account("postgres", 105)}, NO_GROUPS, None)


def test_nothing_to_do() -> None:
    assert not steps([admin()], {"alice": Account("alice", 1000, member=True)}, frozenset({GROUP}), "alice")
    assert not steps([], {"admin": Account("admin", 1000)}, NO_GROUPS, "admin")


def test_who_is_no_longer_listed_is_locked_and_then_forgotten() -> None:
    accounts = {name: Account(name, 1000, member=True) for name in ("alice", "bob")}
    todo = steps([admin()], accounts, frozenset({GROUP}), "alice")
    assert todo.removed == ("bob",) and todo.before == ()
    assert todo.after == (
        ("usermod", "--lock", "--expiredate", "1", "bob"),
        ("gpasswd", "--delete", "bob", GROUP),
    )


def test_the_user_of_this_run_is_never_shut_out() -> None:
    with pytest.raises(AdminsError, match="no longer lists bob, as whom this run came in"):
        steps([admin()], {"bob": Account("bob", 1001, member=True)}, frozenset({GROUP}), "bob")


@pytest.mark.parametrize(("password", "unlocks"), [(True, True), (False, False)])
def test_who_comes_back_is_unlocked(password: bool, unlocks: bool) -> None:
    account = Account("alice", 1000, locked=True, has_password=password)
    (first, second) = steps([admin()], {"alice": account}, frozenset({GROUP}), None).before
    assert first[:3] == ("usermod", "--expiredate", "") and ("--unlock" in first) is unlocks
    assert "--append" in second


@pytest.fixture
def tables(host: FakeHost) -> FakeHost:
    host.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/bash\n+nis\n")
    host.put("/etc/shadow", "bob:$y$hash:20000:0:99999:7:::\n")
    host.put("/etc/group", f"{GROUP}:x:990:bob\nbob:x:1001:\n")
    host.put("/home/bob/.ssh/authorized_keys", line())
    host.put("/home/bob/work", "kept")
    return host


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def converge(host: FakeHost, admins: Sequence[Mapping[str, Any]], *, check: bool = False) -> Any:
    def transaction(spec: Any) -> Any:
        assert not spec.files, "a host in a folder has no root"
        return host.transaction(name=spec.name)

    return Admins(host, transaction, root=host.root).converge(parse(admins), connected_as="admin", check=check)


def test_shutting_out_on_a_host(tables: FakeHost) -> None:
    foretold = converge(tables, [], check=True)
    assert foretold.changed and tables.calls == [] and tables.at("/home/bob/.ssh/authorized_keys").exists()
    done = converge(tables, [])
    assert done.accounts == foretold.accounts
    assert [call[0] for call in tables.calls] == ["pkill", "usermod", "gpasswd"]
    assert ("pkill", "-KILL", "--uid", "1001") in tables.calls
    assert not tables.at("/home/bob/.ssh/authorized_keys").exists()
    assert tables.at("/home/bob/work").read_text() == "kept"


def test_a_command_that_fails_is_told(tables: FakeHost) -> None:
    tables.refuse = lambda argv: "cannot lock /etc/passwd" if argv[0] == "usermod" else None
    with pytest.raises(AdminsError, match="usermod .*: cannot lock /etc/passwd"):
        converge(tables, [])


def test_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/authorized_keys").write_text(line())
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob/.ssh").symlink_to(tmp_path / "root")
    forget_keys(tmp_path / "bob")
    assert (tmp_path / "root/authorized_keys").exists()
