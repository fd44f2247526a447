# GNU General Public License v3.0+ (see LICENSE)
"""What a service leaves on a host when its configuration is gone: releases, certificates, its user; and its data, which stay unless named."""

from __future__ import annotations

import pwd
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .commands import Runner

RENEWAL = "etc/letsencrypt/renewal"
CERTBOT_PREFIX = "selfhost-"


class LeftoversError(Exception):
    """Something is in the way; the message says what to do."""


@dataclass(frozen=True)
class Kept:
    """What stays, why, and how it is deleted later."""

    what: str
    reason: str
    command: str


@dataclass
class Outcome:
    """What was, or would be, removed, and what stays."""

    removed: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    def as_result(self) -> dict[str, Any]:
        return {"changed": bool(self.removed), "removed": self.removed, "kept": [asdict(kept) for kept in self.kept]}


@dataclass(frozen=True)
class Service:
    """What its definition says that it may have."""

    name: str
    components: Collection[str]
    users: Collection[str]
    state: Collection[str]
    certificates: Collection[str]


@dataclass(frozen=True)
class Leftovers:
    """`uids` gives the users there are."""

    runner: Runner
    root: Path = Path("/")
    uids: Callable[[], dict[str, int]] = lambda: {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}

    def remove(self, service: Service, *, delete_data: bool, dry_run: bool) -> Outcome:
        """Data last: by then nothing is left that would want them."""
        outcome = Outcome()
        if not dry_run:
            self._check_stopped(service)
        self._releases(service, outcome, dry_run)
        self._configuration(service, outcome, dry_run)
        self._certificates(service, outcome, dry_run)
        self._state(service, outcome, dry_run, delete_data)
        self._users(service, outcome, dry_run)
        return outcome

    def _check_stopped(self, service: Service) -> None:
        patterns = [f"{service.name}-{component}@*.service" for component in sorted(service.components)]
        listed = self.runner.run(
            ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,deactivating", *patterns]
        )
        running = [line.split()[0] for line in listed.stdout.splitlines()]
        if running:
            raise LeftoversError(
                f"{', '.join(running)} still runs on this host, so nothing of {service.name} was removed here. No set of the "
                f"collection has started it: systemctl disable --now {' '.join(running)}, then run again."
            )

    def _releases(self, service: Service, outcome: Outcome, dry_run: bool) -> None:
        folder = self.root / "opt" / service.name
        if not folder.is_dir():
            return
        for component in sorted({*service.components, "companions"}):
            self._folder(folder / component, outcome, dry_run)
        self._if_empty(folder, outcome, dry_run)

    def _configuration(self, service: Service, outcome: Outcome, dry_run: bool) -> None:
        """Its files went with their sets; what else lies there is somebody's own."""
        folder = self.root / "etc" / service.name
        if folder.is_dir() and not dry_run:
            self._if_empty(folder, outcome, dry_run)

    def _certificates(self, service: Service, outcome: Outcome, dry_run: bool) -> None:
        """A key that nobody uses is only a danger, and a new one is made in seconds."""
        for certificate in service.certificates:
            folder = self._at(certificate)
            lineage = f"{CERTBOT_PREFIX}{folder.name}"
            if (self.root / RENEWAL / f"{lineage}.conf").exists():
                outcome.removed.append(f"certbot's certificate {lineage}")
                if not dry_run:
                    self._run(["certbot", "delete", "--non-interactive", "--cert-name", lineage])
            self._folder(folder, outcome, dry_run)

    def _state(self, service: Service, outcome: Outcome, dry_run: bool, delete_data: bool) -> None:
        uids = self.uids()
        owners = {uids[user] for user in service.users if user in uids}
        for path in service.state:
            folder = self._at(path)
            if not folder.exists():
                continue
            if folder.is_symlink() or folder.stat().st_uid not in owners:
                reason = "it does not belong to the service's own user, so it may be somebody else's"
                outcome.kept.append(Kept(path, reason, f"rm -r {path}"))
            elif delete_data:
                self._folder(folder, outcome, dry_run)
            else:
                outcome.kept.append(Kept(path, "data", f"rm -r {path}"))

    def _users(self, service: Service, outcome: Outcome, dry_run: bool) -> None:
        uids = self.uids()
        kept = [kept.what for kept in outcome.kept if kept.what in service.state]
        for user in service.users:
            if user not in uids:
                continue
            held = [path for path in kept if self._at(path).lstat().st_uid == uids[user]]
            if held:
                # Its number would be given to the next user that is made, and with it these folders.
                reason = f"it owns {', '.join(held)}"
                outcome.kept.append(Kept(f"user {user}", reason, f"userdel {user}, when these are gone"))
            elif uids[user] == 0 or uids[user] >= 1000:
                outcome.kept.append(
                    Kept(f"user {user}", "it is no system user, so it may be a person", f"userdel {user}")
                )
            else:
                outcome.removed.append(f"user {user}")
                if not dry_run:
                    self._run(["userdel", user])

    def _folder(self, folder: Path, outcome: Outcome, dry_run: bool) -> None:
        if folder.is_dir() and not folder.is_symlink():
            outcome.removed.append(self._shown(folder))
            if not dry_run:
                shutil.rmtree(folder)

    def _if_empty(self, folder: Path, outcome: Outcome, dry_run: bool) -> None:
        """The folder itself, where nothing is in it but what goes; what is somebody else's is named."""
        others = sorted(path for path in folder.iterdir() if self._shown(path) not in outcome.removed)
        if others:
            names = ", ".join(path.name for path in others)
            shown = self._shown(folder)
            outcome.kept.append(
                Kept(shown, f"it holds what the collection has not put there: {names}", f"rm -r {shown}")
            )
            return
        outcome.removed.append(self._shown(folder))
        if not dry_run:
            folder.rmdir()

    def _run(self, command: Sequence[str]) -> None:
        result = self.runner.run(command, timeout=120)
        if not result.ok:
            raise LeftoversError(
                f"{' '.join(command)} failed: {' '.join(result.words(lines=3).split())}. What was removed before stays removed; "
                "mend that, then run again."
            )

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _shown(self, path: Path) -> str:
        return f"/{path.relative_to(self.root)}"
