# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A timer of systemd that takes a change back unless somebody comes and stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# A command to its exit status and its error output.
Run = Callable[[Sequence[str]], tuple[int, str]]

NOT_LOADED = 5  # systemctl's exit status for a unit that is not there


class RollbackError(Exception):
    """Why the way back cannot be armed or disarmed; written for the operator."""


class RollbackTimer:
    """Transient, so that it needs no file; it is the caller's part that a reboot brings the former state too."""

    def __init__(self, name: str, run: Run) -> None:
        self._timer = f"{name}.timer"
        self._name = name
        self._run = run

    def armed(self) -> bool:
        """Whether the change still waits to be confirmed."""
        return self._run(["systemctl", "is-active", "--quiet", self._timer])[0] == 0

    def arm(self, seconds: float, command: Sequence[str], *, why: str) -> None:
        """Run the command in so many seconds. To be called before the change, not after it."""
        status, said = self._run(
            ["systemd-run", "--quiet", "--collect", f"--unit={self._name}", f"--on-active={seconds:g}s"]
            + ["--timer-property=AccuracySec=100ms", f"--description={why}", *command]
        )
        if status != 0:
            raise RollbackError(f"nothing was changed, as its way back cannot be armed: {said.strip()}")

    def disarm(self) -> None:
        # Its service too: the timer may have started it a moment ago. Otherwise systemd has forgotten it with the timer.
        for unit in (self._timer, f"{self._name}.service"):
            status, said = self._run(["systemctl", "stop", unit])
            if status not in (0, NOT_LOADED):
                raise RollbackError(f"{unit} cannot be stopped: {said.strip()}")
