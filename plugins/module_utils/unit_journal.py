# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a unit said last: the words of a program that explain to the operator why it does not run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .commands import Runner

# Some write for a terminal, wherever they are: colours (CSI), and titles and links (OSC).
_FOR_TERMINALS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# Of a line that quotes a whole script, the beginning tells what failed and the end why.
_BEGINNING, _END = 400, 200
_FURTHER = 60  # lines that the beginning of the next run may take up, behind those that are looked for


def unit_journal(
    runner: Runner,
    unit: str,
    *,
    lines: int,
    since: str = "",
    or_before: bool = True,
    restarted: bool = False,
    timeout: float = 10,
) -> list[str]:
    """The last lines since a time (as journalctl wants it); with `or_before` of the unit altogether where it has written nothing since.

    `restarted` says that systemd has started it again by itself: then the last lines of a run that ended are what
    tells, and not how the next one begins.
    """
    # A process that ends at once may be gone before journald has looked at it. Its lines are still kept under its
    # unit, but under no invocation, so the time is matched and not the invocation.
    runner.run(["journalctl", "--sync"], timeout=timeout)
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", "--unit", unit]
    reach = lines + _FURTHER if restarted else lines
    matches = [[f"--since={since}"]] if since and not (restarted and or_before) else []
    if or_before or not since:
        matches.append([])
    for match in matches:
        outcome = runner.run([*command, f"--lines={reach}", *match], timeout=timeout)
        plain = _FOR_TERMINALS.sub("", outcome.stdout)
        said = [_short(line.rstrip()) for line in plain.splitlines() if line.strip()]
        if outcome.rc == 0 and said:
            return (_up_to_the_end(said, unit) if restarted else said)[-lines:]
    return []


def _short(line: str) -> str:
    left_out = len(line) - _BEGINNING - _END
    return line if left_out <= 0 else f"{line[:_BEGINNING]} [... {left_out} characters ...] {line[-_END:]}"


def _up_to_the_end(said: Sequence[str], unit: str) -> list[str]:
    """Up to systemd's own word that a process has ended; all, where there is none."""
    ends = [number for number, line in enumerate(said) if line.startswith(f"{unit}: Failed with result")]
    return list(said[: ends[-1] + 1] if ends else said)
