# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands on a host: one small protocol, so that what runs commands can be tested without running any."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

# A module started over SSH may find a path without the administrator's folders.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NOT_FOUND = 127
TIMED_OUT = 124


@dataclass(frozen=True)
class CommandResult:
    """What a command said. `rc` is 127 if there is no such executable, 124 if it ran out of time."""

    argv: tuple[str, ...]
    rc: int
    stdout: str = ""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        return self.rc == 0

    def words(self, *, lines: int = 15) -> str:
        """The command's own words: the end of its error output, else of its output."""
        said = self.stderr.strip() or self.stdout.strip()
        if not said:
            return f"exit status {self.rc}, without a word"
        return "\n".join(said.splitlines()[-lines:])


class Runner(Protocol):
    """Runs a command to its end. Never raises for what the command does: that is in the result."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult: ...

    def which(self, executable: str) -> str | None:
        """The path of an executable, None where it is not installed."""


class SystemRunner:
    """The real one: no shell, the C locale, and the whole process group ended when the time (seconds) is over."""

    def __init__(self, *, timeout: float = 60.0) -> None:
        self.timeout = timeout

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        command = tuple(argv)
        limit = self.timeout if timeout is None else timeout
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": SEARCH_PATH, **(env or {})}
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function  # run_command has no time-out
                command,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except FileNotFoundError:
            return CommandResult(command, NOT_FOUND, stderr=f"{command[0]} is not installed")
        except OSError as error:
            return CommandResult(command, NOT_FOUND, stderr=f"{command[0]} cannot be run: {error.strerror}")
        try:
            out, err = process.communicate(None if stdin is None else stdin.encode(), timeout=limit)
        except subprocess.TimeoutExpired:
            _end(process)
            out, err = process.communicate()
            said = err.decode(errors="replace")
            return CommandResult(
                command, TIMED_OUT, out.decode(errors="replace"), f"{said}\nnot finished after {limit:g} s".strip()
            )
        except BaseException:
            _end(process)
            process.wait()
            raise
        return CommandResult(command, process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def which(self, executable: str) -> str | None:
        return shutil.which(executable, path=SEARCH_PATH)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
