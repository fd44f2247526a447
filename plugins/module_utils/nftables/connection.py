# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The SSH connection that a run uses, and the refusal of rules that would cut it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..ssh.way_in import way_in
from .rules import FirewallError, Rule


def ssh_connection(processes: Path, pid: int) -> tuple[str, int] | None:
    """The client's address and the host's port of the SSH connection that this process descends from."""
    came = way_in(processes, pid)
    return (came.address, came.port) if came else None


def refuse_cut(rules: Sequence[Rule], connection: tuple[str, int] | None) -> None:
    """Fail where the rules would cut the SSH connection that this run uses."""
    if connection is None:
        return
    address, port = connection
    if not any(rule.admits(address, port) for rule in rules):
        raise FirewallError(
            f"these rules would cut this run's own SSH connection, from {address} to port {port}: "
            f"let inbound admit {address} to port {port}/tcp. In the inventory that is fleet_ssh_port: {port}, where the host "
            "is reached through another port than sshd's own, and fleet_ssh_sources, where sources are limited"
        )
