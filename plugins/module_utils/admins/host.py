# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Accounts on the host: reading them, and carrying out what was decided."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.admins.model import (
    GROUP,
    Account,
    Admin,
    AdminsError,
    files,
    steps,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import Runner
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.engine import Transaction
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import SetSpec

# How a transaction of these files is made.
Transactions = Callable[[SetSpec], Transaction]
LOCKED_SINCE = "1"  # the day, counted from 1970, on which `usermod --expiredate 1` lets an account end


@dataclass
class Outcome:
    changed: bool = False
    accounts: list[str] = field(default_factory=list)
    changed_files: list[str] = field(default_factory=list)
    removed_files: list[str] = field(default_factory=list)
    diff: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Admins:
    """All admins of a host, in one go."""

    def __init__(self, runner: Runner, transactions: Transactions, *, root: Path = Path("/")) -> None:
        self._runner = runner
        self._transactions = transactions
        self._root = root

    def converge(self, admins: Sequence[Admin], *, connected_as: str | None, check: bool) -> Outcome:
        accounts, groups = self._accounts()
        todo = steps(admins, accounts, groups, connected_as)
        homes = {name: self._home(name) for name in todo.removed}
        if not check:
            self._run(todo.before)
        taken = self._transactions(files(admins)).run(check=check)
        if not check:
            for name in todo.removed:
                self._shut_out(homes[name], accounts[name])
            self._run(todo.after)
        return Outcome(
            changed=bool(todo) or taken.changed,
            accounts=[" ".join(argv) for argv in (*todo.before, *todo.after)],
            changed_files=taken.changed_files,
            removed_files=taken.removed_files,
            diff=taken.diff,
            warnings=taken.warnings,
        )

    def _accounts(self) -> tuple[dict[str, Account], frozenset[str]]:
        """The host's own users; those of a directory service are not this collection's to change."""
        shadow = {name: rest for name, *rest in self._table("shadow")}
        groups = {name: rest for name, *rest in self._table("group")}
        members = set(groups[GROUP][2].split(",")) if GROUP in groups else set()
        accounts = {}
        for name, _password, uid, *_rest in self._table("passwd"):
            password, *ages = shadow.get(name, ["", *[""] * 7])
            accounts[name] = Account(
                name=name,
                uid=int(uid),
                member=name in members,
                locked=ages[5] == LOCKED_SINCE,
                has_password=password.lstrip("!").startswith("$"),
            )
        return accounts, frozenset(groups)

    def _table(self, name: str) -> list[list[str]]:
        lines = (self._root / "etc" / name).read_text().splitlines()
        return [line.split(":") for line in lines if line.count(":") >= 3]

    def _home(self, name: str) -> Path:
        return next(self._root / fields[5].lstrip("/") for fields in self._table("passwd") if fields[0] == name)

    def _run(self, commands: Sequence[Sequence[str]]) -> None:
        for argv in commands:
            result = self._runner.run(argv)
            if not result.ok:
                raise AdminsError(f"{' '.join(argv)}: {result.words()}")

    def _shut_out(self, home: Path, account: Account) -> None:
        """Keys that the admin put there, and what the admin left running; the other files in the home stay."""
        forget_keys(home)
        done = self._runner.run(["pkill", "-KILL", "--uid", str(account.uid)])
        if done.rc not in (0, 1):  # 1: nothing ran
            raise AdminsError(f"processes of {account.name} cannot be ended: {done.words()}")


def forget_keys(home: Path) -> None:
    """No link is followed: the folder is the user's, and could lead into somebody else's."""
    with contextlib.ExitStack() as stack:
        folder: int | None = None
        for part in (str(home), ".ssh"):
            try:
                folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            except OSError:
                return  # not there, or a link: sshd refuses keys that others may write
            stack.callback(os.close, folder)
        for name in ("authorized_keys", "authorized_keys2"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
