"""Would the user that a run came in as get in again? Judged from what `sshd -T` says."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.ssh import keys
from ansible_collections.selfhost.fleet.plugins.module_utils.ssh.login import (
    Account,
    LoginSandbox,
    objections,
    parse,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.ssh.way_in import WayIn, way_in
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import Difference

EFFECTIVE = """\
permitrootlogin no
pubkeyauthentication yes
authenticationmethods publickey
maxsessions 10
requiredrsasize 3072
authorizedkeysfile .ssh/authorized_keys /etc/ssh/keys/%u
authorizedkeyscommand none
trustedusercakeys none
pubkeyacceptedalgorithms ssh-ed25519,rsa-sha2-512,rsa-sha2-256
"""
ADDRESS = "192.0.2.9"


def line(kind: str = "ssh-ed25519", *fields: bytes, front: str = "") -> str:
    parts = [kind.encode(), *(fields or (bytes(32),))]
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"{front}{kind} {base64.b64encode(blob).decode()} alice@laptop\n"


def rsa(bits: int) -> str:
    return line("ssh-rsa", b"\1\0\1", b"\0" + (1 << (bits - 1) | 1).to_bytes(bits // 8, "big"))


@pytest.fixture
def alice(tmp_path: Path) -> Account:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/authorized_keys").write_text("# mine\n\n" + line())
    return Account("alice", 1000, tmp_path, ("alice", "staff"))


def said(account: Account, more: str = "", *, address: str = ADDRESS, effective: str = EFFECTIVE) -> list[str]:
    changed = {text.partition(" ")[0] for text in more.splitlines()}
    kept = [text for text in effective.splitlines() if text.partition(" ")[0] not in changed]
    return objections(parse("\n".join([*kept, more])), account, address)


def test_nothing_stands_in_the_way(alice: Account) -> None:
    assert said(alice) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("pubkeyauthentication no", "nobody could come in with a key"),
        ("authenticationmethods publickey,password", "a key alone no longer suffices"),
        ("authenticationmethods password keyboard-interactive", "a key alone no longer suffices"),
        ("maxsessions 0", "no command could be run"),
        ("allowusers bob\nallowusers carol", "AllowUsers bob carol: shuts out alice from 192.0.2.9"),
        ("allowusers alice@198.51.100.0/24", "shuts out alice from 192.0.2.9"),
        ("allowusers alice@192.0.2.*,!192.0.2.9", "shuts out"),
        ("denyusers a*", "DenyUsers a*"),
        ("denyusers *@192.0.2.0/24", "DenyUsers *@192.0.2.0/24"),
        ("allowgroups wheel", "is in none of them but in alice, staff"),
        ("denygroups st?ff", "DenyGroups st?ff"),
        ("authorizedkeysfile none", "has no key in no file (AuthorizedKeysFile none)"),
        ("authorizedkeysfile /nowhere/%u", "has no key in /nowhere/alice,"),
        ("pubkeyacceptedalgorithms rsa-sha2-512", "none of the keys of alice"),
    ],
)
def test_what_shuts_out_is_named_with_its_remedy(alice: Account, more: str, words: str) -> None:
    (found,) = said(alice, more)
    assert words in found


@pytest.mark.parametrize(
    "more",
    [
        "authenticationmethods any",
        "authenticationmethods password publickey",
        "authenticationmethods publickey,publickey",
        "allowusers bob\nallowusers alice@192.0.2.0/24",
        "allowusers *@192.0.2.?",
        "denyusers alice@198.51.100.0/24",
        "denyusers alice@2001:db8::/32",
        "allowgroups wheel\nallowgroups staff",
        "authorizedkeysfile none\nauthorizedkeyscommand /usr/bin/sss_ssh_authorizedkeys",
        "authorizedkeysfile none\ntrustedusercakeys /etc/ssh/ca.pub",
        "authorizedkeysfile %h/.ssh/authorized_keys",
    ],
)
def test_what_leaves_the_way_open(alice: Account, more: str) -> None:
    assert said(alice, more) == []


def test_everything_is_told_at_once(alice: Account) -> None:
    assert len(said(alice, "pubkeyauthentication no\nallowusers bob\nallowgroups wheel")) == 3


@pytest.mark.parametrize(
    ("how", "refused"), [("no", True), ("forced-commands-only", True), ("without-password", False)]
)
def test_root(alice: Account, how: str, refused: bool) -> None:
    root = Account("root", 0, alice.home, ("root",))
    found = said(root, f"permitrootlogin {how}")
    assert bool(found) is refused and all("fleet_admins" in text for text in found)


def test_a_login_without_a_key(alice: Account) -> None:
    (alice.home / ".ssh/authorized_keys").write_text("# ssh-ed25519 AAAA\nssh-ed25519 not!base64\n")
    (found,) = said(alice)
    assert "ssh-copy-id" in found and f"{alice.home}/.ssh/authorized_keys or /etc/ssh/keys/alice" in found


@pytest.mark.parametrize(("bits", "least", "refused"), [(2048, 3072, True), (3072, 3072, False), (2048, 1024, False)])
def test_short_rsa_keys(alice: Account, bits: int, least: int, refused: bool) -> None:
    (alice.home / ".ssh/authorized_keys").write_text(rsa(bits))
    found = said(alice, f"requiredrsasize {least}")
    assert bool(found) is refused and all("ssh-rsa of 2048 bits" in text for text in found)


def test_percent_signs_in_names_of_files(alice: Account) -> None:
    (alice.home / "%u-1000").write_text(line())
    assert said(alice, "authorizedkeysfile %%u-%U") == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (line(front='from="192.0.2.0/24",command="x y" '), "ssh-ed25519"),
        (line("sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:"), "sk-ssh-ed25519@openssh.com"),
        (line("ecdsa-sha2-nistp256", b"nistp256", bytes(65)), "ecdsa-sha2-nistp256"),
    ],
)
def test_lines_with_keys(text: str, kind: str) -> None:
    key = keys.parse(text)
    assert key and key.kind == kind and not key.authority


def test_lines_without_keys() -> None:
    other = line().replace("ssh-ed25519", "ssh-rsa", 1)  # says one kind and holds another
    assert [keys.parse(text) for text in ("", "# " + line(), "ssh-ed25519 AAAA", other, line()[:40])] == [None] * 5


def test_an_authority_signs_keys_that_cannot_be_looked_at(alice: Account) -> None:
    (alice.home / ".ssh/authorized_keys").write_text(rsa(2048).replace("ssh-rsa", "cert-authority ssh-rsa", 1))
    assert said(alice) == []


def _process(folder: Path, pid: int, parent: int, environment: bytes) -> None:
    (folder / str(pid)).mkdir()
    (folder / str(pid) / "environ").write_bytes(environment)
    (folder / str(pid) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")


def test_the_way_in_is_found_above_sudo(tmp_path: Path) -> None:
    _process(tmp_path, 30, 20, b"SUDO_USER=alice\0LOGNAME=root\0")
    _process(tmp_path, 20, 10, b"LOGNAME=alice\0SSH_CONNECTION=fe80::9%eth0 40000 fe80::1%eth0 2222\0")
    assert way_in(tmp_path, 30) == WayIn("alice", "fe80::9", 2222, "fe80::1")
    assert way_in(tmp_path, 99) is None


class Inner:
    """A sandbox that answers for sshd."""

    def __init__(self, effective: str, refuses: str = "") -> None:
        self.effective, self.refuses = effective, refuses

    def validate(
        self, _difference: Difference, commands: Sequence[Sequence[str]], _timeout: float
    ) -> list[CommandResult]:
        results = []
        for argv in commands:
            refused = " ".join(argv) == self.refuses
            results.append(CommandResult(tuple(argv), int(refused), self.effective, "line 1: bad" if refused else ""))
            if refused:
                break
        return results


def judged(inner: Inner, user: str) -> list[CommandResult]:
    sandbox = LoginSandbox(inner, WayIn(user, ADDRESS, 22, "192.0.2.1"))
    return sandbox.validate(Difference(), [["sshd", "-t"]], 5)


def test_the_question_is_one_more_validator() -> None:
    me = "root" if os.geteuid() == 0 else os.environ["USER"]
    refused = judged(Inner("allowusers nobody-else"), me)[-1]
    assert refused.argv[:3] == ("sshd", "-T", "-C") and "addr=192.0.2.9,laddr=192.0.2.1,lport=22" in refused.argv[3]
    assert not refused.ok and "AllowUsers nobody-else" in refused.stderr
    assert judged(Inner("authorizedkeyscommand /usr/bin/keys"), me)[-1].ok


def test_what_sshd_itself_refuses_is_told_as_it_says_it() -> None:
    (only,) = judged(Inner("", refuses="sshd -t"), "root")
    assert only.stderr == "line 1: bad"


def test_a_user_that_the_host_does_not_know() -> None:
    assert "is no user of this host" in judged(Inner(""), "no-such-user")[-1].stderr
