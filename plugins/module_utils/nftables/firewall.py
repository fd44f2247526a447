# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file, the live table, and the timer that takes a ruleset back which nobody has confirmed."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..rollback import RollbackError, RollbackTimer
from .kernel import Kernel, Run, restore_text
from .rules import FirewallError


@dataclass(frozen=True)
class Outcome:
    """What a run found and did."""

    changed: bool
    pending: bool = False  # loaded, and taken back by itself unless it is confirmed
    drift: bool = False  # the file was right, the kernel's table was not
    before: str = ""
    after: str = ""
    change: str = ""  # what a pending ruleset is confirmed by


class Firewall:
    """The file, the live table, and the timer that takes an unconfirmed ruleset back."""

    TIMER = "selfhost-firewall-rollback"

    def __init__(self, path: Path, *, run: Run, kernel: Kernel, state: Path = Path("/run/selfhost/firewall")) -> None:
        self._path = path
        self._run = run
        self._kernel = kernel
        self._former = state / "former.nft"
        self._candidate = state / "candidate.nft"
        self._change = state / "change"
        self._timer = RollbackTimer(self.TIMER, self._systemd)

    def converge(
        self, text: str, *, rollback_after: int, dry_run: bool, missing_users: Collection[str] = ()
    ) -> Outcome:
        """Make the live table and the file what the text says. Rules for users that are missing cannot be loaded."""
        if dry_run and (missing_users or not self._kernel.available):
            return Outcome(changed=True, after=text)
        if not self._kernel.available:
            raise FirewallError("nft is not installed; the Debian package nftables belongs to the plan's packages")
        if missing_users:
            raise FirewallError(f"rules name system users that are not there: {', '.join(sorted(missing_users))}")
        if not dry_run and self._timer.armed():
            self._take_back()  # a run that died between loading and confirming
        former_text = self._path.read_text() if self._path.exists() else None
        live = self._kernel.live()
        with tempfile.TemporaryDirectory(prefix="selfhost-firewall-") as scratch:
            trial = Path(scratch) / "candidate.nft"
            trial.write_text(text)
            wanted = self._kernel.as_loaded(trial)
        if live == wanted:
            if former_text != text and not dry_run:
                _write(self._path, text)
            return Outcome(changed=former_text != text, before=former_text or "", after=text)
        drift = former_text == text
        if dry_run:
            return Outcome(changed=True, drift=drift, before=live or "", after=wanted)
        change = secrets.token_hex(8)
        _write(self._former, restore_text(live))
        _write(self._candidate, text)
        _write(self._change, change)
        self._arm(rollback_after)
        self._kernel.load(self._candidate)
        return Outcome(changed=True, pending=True, drift=drift, before=live or "", after=wanted, change=change)

    def confirm(self, change: str) -> None:
        """Keep the loaded ruleset: disarm the timer, and write the file that is loaded at boot.

        Only whoever loaded it has proven that it lets them in: a run that was killed may leave a process behind that comes
        back when another run's ruleset waits here.
        """
        if not self._timer.armed():
            raise FirewallError("the new ruleset was taken back before it was confirmed; the former one is in force")
        if self._change.read_text() != change:
            raise FirewallError("the new ruleset was taken back before it was confirmed; that of another run waits now")
        self._disarm()
        # The timer may have been faster.
        if self._kernel.live() != self._kernel.as_loaded(self._candidate):
            raise FirewallError("the new ruleset was taken back while it was confirmed; the former one is in force")
        _write(self._path, self._candidate.read_text())
        for path in (self._candidate, self._former, self._change):
            path.unlink()

    def _take_back(self) -> None:
        self._disarm()
        self._kernel.load(self._former)

    def _arm(self, seconds: int) -> None:
        command = [self._kernel.nft, "-f", str(self._former)]
        try:
            self._timer.arm(seconds, command, why="Takes an unconfirmed firewall back")
        except RollbackError as error:
            raise FirewallError(str(error)) from None

    def _disarm(self) -> None:
        try:
            self._timer.disarm()
        except RollbackError as error:
            raise FirewallError(str(error)) from None

    def _systemd(self, argv: Sequence[str]) -> tuple[int, str]:
        done = self._run(argv)
        return done.returncode, done.stderr


def _write(path: Path, text: str) -> None:
    """Write a file that only root reads, whole or not at all."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
