# GNU General Public License v3.0+ (see LICENSE)
"""What a rehearsal makes on a host, and takes away again: a folder, and units that are gone with the next boot."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ...commands import CommandResult, Runner
from ...unit_journal import unit_journal
from .lock import RehearsalError

FOLDER = Path("/var/lib/selfhost-rehearsal")
UNITS = Path("/run/systemd/system")
PREFIX = "selfhost-rehearsal"
JOURNAL_LINES = 12
FULL = "No space left on device"  # as every program calls it
SCANT = 1024 * 1024  # bytes; a disk with no more is full to PostgreSQL, which writes in steps
ROOM = 256 * 1024 * 1024  # bytes that stay free, and that an empty cluster takes


class Place:
    """Of rehearsals on a host. Whatever happens, nothing of one is left."""

    def __init__(self, *, runner: Runner, timeout: float, folder: Path = FOLDER, units: Path = UNITS) -> None:
        self.runner, self.timeout, self.folder, self.units = runner, timeout, folder, units
        self.began = int(time.time())

    def clear(self) -> None:
        """Nothing of this rehearsal, or of one that was cut off, is left."""
        listed = self.runner.run(
            ["systemctl", "list-units", "--all", "--plain", "--no-legend", f"{PREFIX}-*"], timeout=30
        )
        # What they use goes after them.
        for unit in sorted(
            (line.split()[0] for line in listed.stdout.splitlines() if line.strip()),
            key=lambda name: name.endswith(("-postgres.service", "-network.service")),
        ):
            self.runner.run(["systemctl", "stop", unit], timeout=120)
            self.runner.run(["systemctl", "reset-failed", unit], timeout=30)
        for path in self.units.glob(f"{PREFIX}-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.folder.exists():
            _empty(self.folder)
        self.runner.run(["systemctl", "daemon-reload"], timeout=60)

    def unit(self, name: str, text: str) -> None:
        path = self.units / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, *units: str) -> None:
        self.must(["systemctl", "daemon-reload"])
        self.must(["systemctl", "start", *units])

    def said(self, unit: str, *, restarted: bool = False) -> list[str]:
        """The last lines of a unit in this rehearsal: others before it had units of the same names."""
        return unit_journal(
            self.runner, unit, lines=JOURNAL_LINES, since=f"@{self.began}", or_before=False, restarted=restarted
        )

    def must(self, command: Sequence[str]) -> CommandResult:
        done = self.runner.run(command, timeout=self.timeout)
        if not done.ok:
            what = re.sub(r"^runuser -u postgres -- ", "", " ".join(command))
            said = done.words(lines=5)
            # The last lines of initdb are of how it clears up.
            if FULL in done.stderr and FULL not in said:
                said = f"{FULL}\n{said}"
            raise RehearsalError(f"{what[:200]}: {said}")
        return done

    # Its disk

    def make_folder(self) -> int:
        """Bytes that are free where it is."""
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    def is_full(self, words: str) -> bool:
        """Some programs take away what they had written before they end, and others do not say why they end."""
        return FULL in words or shutil.disk_usage(self.folder).free <= SCANT


def _empty(folder: Path) -> None:
    """Take a folder away; what has a disk or a link of the operator's in its place stays, without anything in it."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if not folder.is_mount() and not folder.is_symlink():
        folder.rmdir()
