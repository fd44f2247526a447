# GNU General Public License v3.0+ (see LICENSE)
"""A host brought up to date: packages in one transaction, then a restart of each unit that still runs what they replaced."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..commands import CommandResult, Runner
from . import boot, stale
from .upgrade import Upgrade, Upgrader

LISTS = "var/lib/apt/lists"
DPKG = "var/lib/dpkg/info"
DATABASE = "postgresql@*.service"
RESTART_TIMEOUT = 600.0  # seconds; longer than the longest TimeoutStopSec of a definition


class UpdatesError(Exception):
    """What could not be brought up to date, and what to do; `done` is what was by then."""

    def __init__(self, message: str, done: Outcome) -> None:
        super().__init__(message)
        self.done = done


@dataclass
class Outcome:
    """What was, or would be, done on a host."""

    upgrades: list[Upgrade] = field(default_factory=list)
    kept_back: list[str] = field(default_factory=list)
    restarts: dict[str, list[str]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    reboot: list[str] = field(default_factory=list)
    manager: list[str] = field(default_factory=list)
    database_restarted: bool = False

    @property
    def changed(self) -> bool:
        return bool(self.upgrades or self.restarts or self.manager)

    def as_result(self) -> dict[str, Any]:
        return {
            "upgrades": [asdict(upgrade) for upgrade in self.upgrades],
            "kept_back": self.kept_back,
            "restarts": self.restarts,
            "left": self.left,
            "reboot": self.reboot,
            "manager": bool(self.manager),
            "database_restarted": self.database_restarted,
        }


@dataclass(frozen=True)
class HostUpdates:
    """`security`: only what Debian's security archive has."""

    runner: Runner
    packages: Upgrader
    kernel: str
    security: bool = False
    root: Path = Path("/")
    processes: Callable[[Path, Collection[str]], list[stale.Process]] = stale.processes

    def survey(self, *, touch: bool) -> Outcome:
        """What there is to do. Without `touch` not even the host's package lists are renewed."""
        if touch:
            return self._look(None)
        with _own_lists(self.root / LISTS) as lists:
            return self._look(lists)

    def apply(self) -> Outcome:
        done = Outcome()
        database = self._database()
        chosen = self._chosen(self.packages.upgradable().upgrades)
        if chosen:
            self.packages.upgrade([upgrade.name for upgrade in chosen] if self.security else None)
            done.upgrades = chosen
        found = self._stale()
        if found.manager:
            self._run(["systemctl", "daemon-reexec"], "systemd", done)
            done.manager = found.manager
        for unit, files in found.restart.items():
            self._run(self._restart(unit), unit, done)
            done.restarts[unit] = files
        done.left = found.leave
        done.reboot = boot.reasons(self.root, self.kernel)
        done.database_restarted = self._database() != database
        return done

    def _look(self, lists: Path | None) -> Outcome:
        upgrades = self.packages.upgradable(lists=lists)
        chosen = self._chosen(upgrades.upgrades)
        names = [upgrade.name for upgrade in chosen]
        found = self._stale(stale.files_of(names, self.root / DPKG))
        return Outcome(
            upgrades=chosen,
            kept_back=upgrades.kept_back,
            restarts=found.restart,
            left=found.leave,
            manager=found.manager,
            reboot=boot.reasons(self.root, self.kernel) or boot.foretold(names),
        )

    def _chosen(self, upgrades: Sequence[Upgrade]) -> list[Upgrade]:
        return [upgrade for upgrade in upgrades if upgrade.security or not self.security]

    def _stale(self, replaced: Collection[str] = ()) -> stale.Stale:
        found = self.processes(self.root / "proc", replaced)
        units = sorted({process.unit for process in found if process.unit.endswith(".service")})
        states = stale.properties(self.runner.run(stale.show(units)).stdout) if units else {}
        return stale.judge(found, states)

    def _database(self) -> list[tuple[str, str]]:
        """Which runs of PostgreSQL there are: a package that is upgraded restarts its clusters by itself."""
        states = stale.properties(self.runner.run(stale.show([DATABASE])).stdout)
        return sorted((name, state.get("InvocationID", "")) for name, state in states.items())

    def _restart(self, unit: str) -> list[str]:
        script = stale.GRACEFUL.get(unit)
        return [script, "upgrade"] if script and self.runner.which(script) else ["systemctl", "restart", "--", unit]

    def _run(self, command: list[str], unit: str, done: Outcome) -> None:
        result = self.runner.run(command, timeout=RESTART_TIMEOUT)
        if not result.ok:
            raise UpdatesError(
                f"{unit} did not start again after its files were upgraded: {_words(result)}. "
                f"journalctl -u {unit} says why; mend that, then run again.",
                done,
            )


def _words(result: CommandResult) -> str:
    return " ".join(result.words(lines=3).split())


@contextmanager
def _own_lists(lists: Path) -> Iterator[Path]:
    """A copy of the package lists, which can be renewed while the host's own stay as they are."""
    with tempfile.TemporaryDirectory(prefix="selfhost-lists-") as folder:
        # apt reads and writes there as its own user.
        Path(folder).chmod(0o755)
        own = Path(folder) / "lists"
        own.mkdir()
        for path in sorted(lists.glob("*_*")) if lists.is_dir() else []:
            if path.is_file():
                shutil.copy2(path, own)
        yield own
