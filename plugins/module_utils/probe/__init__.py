# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does it answer? Over HTTP, TCP or WebSocket, with its systemd unit watched meanwhile."""

from __future__ import annotations

from .run import ProbeResult, probe
from .spec import ProbeSpec, ProbeSpecError
from .system import Clock, SystemClock

__all__ = ["Clock", "ProbeResult", "ProbeSpec", "ProbeSpecError", "SystemClock", "probe"]
