# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second connection to a host, beside the one that is kept: what proves that the next run can come in too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Connections that a firewall or sshd can cut; others (docker, local) have nothing to open anew.
OVER_THE_NETWORK = ("ssh", "paramiko_ssh")


def is_over_the_network(connection: Any) -> bool:
    return connection.transport in OVER_THE_NETWORK


@contextmanager
def fresh_connection(connection: Any) -> Iterator[None]:
    """What is run within goes over connections of its own; afterwards the former one is in use again.

    OpenSSH's `-S none` has the last word over every ControlPath, wherever it comes from. The master stays up meanwhile,
    and so is there to take a change back.
    """
    if connection.transport != "ssh":
        if is_over_the_network(connection):
            connection.reset()
        yield
        return
    former = connection.get_option("ssh_extra_args")
    connection.set_option("ssh_extra_args", f"{former or ''} -S none".strip())
    try:
        yield
    finally:
        connection.set_option("ssh_extra_args", former)
