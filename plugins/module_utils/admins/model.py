# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Admins as they are wanted, the files that make them so, and what is to be done with their accounts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.ssh import keys
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import (
    DirectorySpec,
    FileSpec,
    SetSpec,
)

GROUP = "fleet-admins"  # its members are those whom this collection has made admins
KEYS = "/etc/ssh/fleet_admins.d"
SUDOERS = "/etc/sudoers.d/50-selfhost-fleet"
FIRST_PERSON = 1000  # Debian's FIRST_UID: accounts below are the system's
LEAST_RSA = 3072
HEAD = "# Managed by selfhost.fleet, role users.\n"

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class AdminsError(Exception):
    """What is wrong with the list, or what stands in the way on the host; written for the operator."""


@dataclass(frozen=True)
class Admin:
    name: str
    keys: tuple[str, ...]
    sudo: str = "password"


@dataclass(frozen=True)
class Account:
    """A user that the host has. `locked` is how this collection locks: nobody comes in, by whatever means."""

    name: str
    uid: int
    member: bool = False
    locked: bool = False
    has_password: bool = False


def parse(entries: Sequence[Mapping[str, Any]]) -> list[Admin]:
    """The list; every mistake in it is reported at once."""
    admins, mistakes = [], []
    for index, entry in enumerate(entries):
        admin = Admin(str(entry["name"]), tuple(str(key).strip() for key in entry["keys"]), str(entry["sudo"]))
        admins.append(admin)
        where = f"fleet_admins[{index}] ({admin.name})"
        if not _NAME.fullmatch(admin.name) or admin.name == "root":
            mistakes.append(f"{where}: not a name for an admin; use small letters, digits, _ and -, and not root")
        if admin.name in [other.name for other in admins[:-1]]:
            mistakes.append(f"{where}: listed twice; keep one entry")
        if not admin.keys:
            mistakes.append(f"{where}: has no keys, and could not come in; list at least one, or take the entry out")
        mistakes += [
            f"{where}: keys[{number}] {wrong}" for number, key in enumerate(admin.keys) if (wrong := _wrong(key))
        ]
    if mistakes:
        raise AdminsError("\n".join(mistakes))
    return admins


def _wrong(text: str) -> str:
    key = keys.parse(text)
    if "\n" in text or key is None:
        return "is not one line of a public key file, such as ~/.ssh/id_ed25519.pub"
    if key.kind == "ssh-dss" or (key.bits and key.bits < LEAST_RSA):
        size = f" of {key.bits} bits" if key.bits else ""
        return f"is weak ({key.kind}{size}); make another one with: ssh-keygen -t ed25519"
    return ""


def files(admins: Sequence[Admin]) -> SetSpec:
    """Keys and sudo's rules, as one transaction. What is root's an admin cannot change, nor leave behind."""
    if not admins:
        return SetSpec(name="admins")
    rules = [f"{admin.name} ALL=(ALL:ALL) {'NOPASSWD: ' if admin.sudo == 'nopasswd' else ''}ALL\n" for admin in admins]
    # sshd reads a user's keys as the user.
    held = [FileSpec(f"{KEYS}/{admin.name}", "".join(f"{key}\n" for key in admin.keys).encode()) for admin in admins]
    return SetSpec(
        name="admins",
        files=(FileSpec(SUDOERS, (HEAD + "".join(rules)).encode(), mode=0o440), *held),
        directories=(DirectorySpec(KEYS),),
        validate=(("visudo", "-c"),),
    )


@dataclass(frozen=True)
class Steps:
    """Commands for the accounts: what comes before the files, and what after; and whose own keys and processes go."""

    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.before or self.after)


def steps(
    admins: Sequence[Admin], accounts: Mapping[str, Account], groups: frozenset[str], connected_as: str | None
) -> Steps:
    """What is to be done. Fails before anything is where it must not be."""
    removed = sorted(name for name, account in accounts.items() if account.member and not _listed(name, admins))
    mistakes = [
        f"{admin.name} is an account of the system (uid {accounts[admin.name].uid}); give the admin another name"
        for admin in admins
        if admin.name in accounts and accounts[admin.name].uid < FIRST_PERSON
    ]
    if connected_as in removed:
        mistakes.append(
            f"fleet_admins no longer lists {connected_as}, as whom this run came in. Run it as another admin "
            "(ansible_user), or list the user again"
        )
    if mistakes:
        raise AdminsError("\n".join(mistakes))
    before: list[tuple[str, ...]] = []
    if admins and GROUP not in groups:
        before.append(("groupadd", "--system", GROUP))
    for admin in admins:
        account = accounts.get(admin.name)
        if account is None:
            # Debian's useradd refuses to make a group that is there already.
            own = ("--gid", admin.name) if admin.name in groups else ("--user-group",)
            before.append(("useradd", "--create-home", "--shell", "/bin/bash", *own, "--groups", GROUP, admin.name))
            continue
        if account.locked:
            unlock = ("--unlock",) if account.has_password else ()
            before.append(("usermod", "--expiredate", "", *unlock, admin.name))
        if not account.member:
            before.append(("usermod", "--append", "--groups", GROUP, admin.name))
    after: list[tuple[str, ...]] = []
    for name in removed:
        # An account that has expired is let in by nothing that asks PAM: not by key, not by cron.
        after.append(("usermod", "--lock", "--expiredate", "1", name))
        # The last step: until it is done, the next run knows that something is left to do.
        after.append(("gpasswd", "--delete", name, GROUP))
    return Steps(tuple(before), tuple(after), tuple(removed))


def _listed(name: str, admins: Sequence[Admin]) -> bool:
    return any(admin.name == name for admin in admins)
