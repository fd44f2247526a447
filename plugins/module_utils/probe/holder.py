# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on a port: the unit that is asked about, or somebody else.

A service that finds its port taken may only log it and stay active (Fluxbase does), so that an answer from the port
proves nothing about the unit. The kernel keeps the control group that each socket was made in, and systemd gives each
unit a group of its own.
"""

from __future__ import annotations

import re

from ..commands import Runner

LOOPBACK = ("127.", "[::1]", "::1", "localhost")
ANY = ("0.0.0.0", "[::]", "*")  # noqa: S104 (compared with, not bound to)
# Sockets made by systemd itself (socket activation) or outside of this host's tree tell nothing.
NOBODY = ("", "/", "/init.scope")


def foreign_holder(unit: str, address: tuple[str, int], runner: Runner) -> str | None:
    """The control group of whoever listens on this address while no socket of the unit's does.

    None where the unit listens, where nobody of this host does, and where the kernel or ss cannot tell.
    """
    host, port = address
    outcome = runner.run(["ss", "-tlnH", "--cgroup", "sport", "=", f":{port}"], timeout=10)
    if outcome.rc != 0:
        return None
    groups = [group for local, group in _listeners(outcome.stdout) if _reaches(local, host) and group not in NOBODY]
    shown = runner.run(["systemctl", "show", "--property=ControlGroup", "--value", "--", unit], timeout=10)
    own = shown.stdout.strip()
    if not groups or shown.rc != 0:
        return None
    if own and any(group == own or group.startswith(f"{own}/") for group in groups):
        return None
    return groups[0]


def _listeners(output: str) -> list[tuple[str, str]]:
    """(local address without the port, control group) of each line of ss."""
    found = []
    for line in output.splitlines():
        fields = line.split()
        group = re.search(r"\bcgroup:(/\S*)", line)
        if len(fields) >= 4:
            found.append((fields[3].rpartition(":")[0].partition("%")[0], group.group(1) if group else ""))
    return found


def _reaches(local: str, host: str) -> bool:
    if host.startswith(LOOPBACK):
        return local in ANY or local.startswith(LOOPBACK)
    return local.strip("[]") == host.strip("[]")
