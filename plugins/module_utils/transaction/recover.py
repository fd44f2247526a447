# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back: from a failure, and from a run that was killed."""

from __future__ import annotations

import shutil
from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import Runner
from ansible_collections.selfhost.fleet.plugins.module_utils.storage import trouble
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import Journal
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.swap import restore
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.units import Units


def foretold(root: Path) -> list[str]:
    """What check mode says of an interrupted run, which it cannot undo."""
    interrupted = Journal.interrupted(root)
    if not interrupted:
        return []
    return [
        f"A former run of {', '.join(interrupted)} was interrupted; the next run outside check mode first puts "
        "back what was there before it. What is shown here is compared with what lies there now"
    ]


class Recovery:
    def __init__(self, root: Path, runner: Runner, units: Units, timeout: float) -> None:
        self.root = root
        self.runner = runner
        self.units = units
        self.timeout = timeout

    def all(self) -> list[str]:
        """Undo every interrupted run on the host, of other sets too: what they left may be validated here."""
        recovered = []
        for name in Journal.interrupted(self.root):
            journal = Journal.load(self.root, name)
            if journal is None:
                # Killed before the journal was complete, or after it was removed: nothing live is left over.
                shutil.rmtree(Journal(self.root, name).folder)
                continue
            if journal.stage == "committed":
                journal.remove()
                continue
            try:
                left = self.back(journal, touched_only=False)
            except OSError as error:
                raise TransactionError(
                    f"The interrupted run of {name} could not be undone: {trouble(error)}. Mend that and run "
                    f"again: the former files are kept in {journal.folder}",
                    phase="recover",
                ) from None
            if left:
                # The files are back; what does not start with them is for the set's own units and probes to find.
                recovered.append(f"{name} (the former files are back, but: {'; '.join(left)})")
            else:
                recovered.append(name)
        return recovered

    def back(self, journal: Journal, *, touched_only: bool) -> list[str]:
        """Files, then what runs over them. Returns what of the running state did not come back, in words."""
        applied = journal.stage in ("applying", "pending")
        if (journal.folder / "journal.json").exists():
            restore(self.root, journal)
        left: list[str] = []
        if applied:
            left = self._running_state(journal, touched_only=touched_only)
        if journal.folder.exists():
            journal.remove()
        return left

    def _running_state(self, journal: Journal, *, touched_only: bool) -> list[str]:
        left = []
        if journal.daemon_reload:
            result = self.units.daemon_reload()
            if not result.ok:
                left.append(f"systemctl daemon-reload: {result.words()}")
        for argv in journal.commands:
            result = self.runner.run(argv, timeout=self.timeout)
            if not result.ok:
                left.append(f"{' '.join(argv)}: {result.words(lines=5)}")
        for entry in journal.units:
            if entry.touched or not touched_only:
                left += self.units.back(entry)
        return left
