# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is ended from outside undoes what it has begun."""

from __future__ import annotations

import signal
from typing import NoReturn


class Ended(BaseException):
    """A signal: the connection is gone, or somebody ends the run. What was begun is undone."""


def watch_signals() -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def end(number: int, _frame: object) -> NoReturn:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Ended(f"ended by {signal.Signals(number).name}")

    for number in numbers:
        signal.signal(number, end)
