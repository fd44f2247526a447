# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back of a change that its controller has to confirm: when the time is over, the host undoes it by itself."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import Runner, SystemRunner
from ansible_collections.selfhost.fleet.plugins.module_utils.rollback import RollbackError, RollbackTimer
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.lock import host_lock
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.recover import Recovery
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.units import Units

PACKAGE = "ansible_collections.selfhost.fleet.plugins.module_utils"
PROGRAM = "take-back.pyz"
# Python's own folder of a program that is a zip file.
MAIN = f"from {__name__} import main\n\nmain({{name!r}})\n"
TIMEOUT = 60.0  # seconds


class WayBack:
    """Armed before anything is touched."""

    def __init__(self, name: str, runner: Runner) -> None:
        self._name = name
        self._runner = runner
        self._timer = RollbackTimer(f"selfhost-take-back-{name.replace('@', '-')}", self._run)

    def arm(self, journal: Path, seconds: float) -> None:
        """The code lies beside the journal that it reads, and goes with it: a timer that is left over does nothing."""
        program = journal / PROGRAM
        program.write_bytes(packed(self._name))
        script = 'test ! -e "$2" || exec "$1" -I "$2"'
        try:
            if self._timer.armed():
                self._timer.disarm()
            self._timer.arm(
                seconds,
                ["/bin/sh", "-c", script, "sh", sys.executable, str(program)],
                why=f"Takes the change of {self._name} back, as nobody has confirmed it",
            )
        except RollbackError as error:
            raise TransactionError(str(error), phase="swap") from None

    def disarm(self) -> list[str]:
        """After the journal is gone. Returns what did not work: a timer that is left over finds nothing to do."""
        try:
            if self._timer.armed():
                self._timer.disarm()
        except RollbackError as error:
            return [str(error)]
        return []

    def _run(self, argv: Sequence[str]) -> tuple[int, str]:
        result = self._runner.run(argv, timeout=TIMEOUT)
        return result.rc, result.words()


def packed(name: str) -> bytes:
    """The code of this collection that is in use, as one program.

    A module and what it imports are gone when the module has ended; the way back must not need the controller.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("__main__.py", MAIN.format(name=name))
        parts = PACKAGE.split(".")
        for depth in range(1, len(parts) + 1):
            archive.writestr("/".join([*parts[:depth], "__init__.py"]), "")
        for module in sorted(sys.modules):
            spec = importlib.util.find_spec(module) if module.startswith(f"{PACKAGE}.") else None
            if spec is None or spec.loader is None:
                continue
            is_package = spec.submodule_search_locations is not None
            path = module.replace(".", "/") + ("/__init__.py" if is_package else ".py")
            archive.writestr(path, spec.loader.get_source(module) or "")  # type: ignore[attr-defined]
    return target.getvalue()


def main(name: str) -> None:
    """What the timer runs."""
    root, runner = Path("/"), SystemRunner(timeout=TIMEOUT)
    with host_lock(root, name, TIMEOUT):
        recovered = Recovery(root, runner, Units(runner, timeout=TIMEOUT), TIMEOUT).all()
    words = [f"taken back: {one}" for one in recovered] or ["nothing to take back"]
    sys.stdout.write("\n".join(words) + "\n")
