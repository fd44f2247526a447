# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock on the fleet: a file on each host, which says whose run works on it.

A file and not flock(2), as it has to outlive the modules of a run, and its controller's connection.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.files import (
    RolloutError,
    alone,
    now,
    stamp,
    write_whole,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.storage import trouble
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.compare import real
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import sync_folder

PATH = "/var/lib/selfhost/fleet.lock"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Whose the lock is. `controller` is for the controller alone, which can see whether that run still lives."""

    token: str
    operator: str
    what: str
    since: str
    controller: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Holder:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("it is no mapping")
        words = {name: data.get(name) for name in ("token", "operator", "what", "since")}
        wrong = [name for name, value in words.items() if not isinstance(value, str) or not value]
        controller = data.get("controller", {})
        if wrong or not isinstance(controller, dict):
            raise ValueError(f"{', '.join(wrong) or 'controller'} is missing or of a wrong type")
        return cls(**{name: str(value) for name, value in words.items()}, controller=controller)

    def words(self) -> str:
        where = [
            f"{name} {self.controller[key]}"
            for key, name in (("pid", "process"), ("host", "on"))
            if self.controller.get(key)
        ]
        return f"{self.operator}, since {self.since}, for: {self.what}" + (f" ({' '.join(where)})" if where else "")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`holder`: whose the lock is afterwards. `former`: from whom it was taken over."""

    changed: bool
    holder: Holder | None
    former: Holder | None = None

    def as_result(self) -> dict[str, Any]:
        return {
            "changed": self.changed,
            "holder": asdict(self.holder) if self.holder else None,
            "taken_over": asdict(self.former) if self.former else None,
        }


class FleetLock:
    def __init__(self, root: Path, *, clock: Callable[[], datetime] = now) -> None:
        self._path = real(root, PATH)
        self._clock = clock

    def hold(
        self,
        *,
        token: str,
        operator: str,
        what: str,
        controller: Mapping[str, Any],
        takeover: str | None = None,
        ended: str | None = None,
        dry_run: bool = False,
    ) -> Outcome:
        """Take the lock, or find that it is this run's already.

        `takeover` names the operator whose lock is taken over, `ended` the token of a run that is known to live no more:
        either does nothing to the lock of anybody else, who may have come between the question and the answer.
        """
        wanted = Holder(token=token, operator=operator, what=what, since=stamp(self._clock()), controller=controller)
        with self._alone(dry_run=dry_run):
            held = self._read()
            if held and held.token == token:
                return Outcome(changed=False, holder=held)
            if held and held.token != ended and held.operator != takeover:
                raise RolloutError(self._refusal(held, takeover), holder=asdict(held))
            if not dry_run:
                write_whole(self._path, asdict(wanted))
            return Outcome(changed=True, holder=wanted, former=held)

    def release(self, *, token: str, dry_run: bool = False) -> Outcome:
        """Let go of the lock. Another run's stays, and is told."""
        if not self._path.exists():
            return Outcome(changed=False, holder=None)
        with self._alone(dry_run=dry_run):
            held = self._read()
            if held is None or held.token != token:
                return Outcome(changed=False, holder=held)
            if not dry_run:
                self._path.unlink()
                sync_folder(self._path.parent)
            return Outcome(changed=True, holder=None)

    def _alone(self, *, dry_run: bool) -> AbstractContextManager[None]:
        """Check mode makes no folder; what it reads is whole anyway."""
        return nullcontext() if dry_run else alone(self._path.parent)

    def _read(self) -> Holder | None:
        try:
            return Holder.parse(self._path.read_text())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RolloutError(trouble(error)) from None
        except (ValueError, RecursionError) as error:
            raise RolloutError(
                f"{self._path}: this lock on the fleet cannot be read ({error}), so nobody knows whose it is. Ask whether "
                "somebody works on the fleet; if nobody does, remove the file on this host and run again"
            ) from None

    @staticmethod
    def _refusal(held: Holder, takeover: str | None) -> str:
        name = f" lock_takeover={takeover} names somebody else, so nothing was taken over." if takeover else ""
        return (
            f"The fleet is locked by {held.words()}.{name} Wait until that run has ended. If it is dead (its machine is "
            f"gone, nobody will go on with it), take its lock over with: -e {shlex.quote(f'lock_takeover={held.operator}')}"
        )
