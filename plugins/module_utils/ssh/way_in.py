# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The SSH connection that a process of this host descends from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WayIn:
    """Who came in, from where, and at which address and port of this host."""

    user: str
    address: str
    port: int
    host_address: str


def way_in(processes: Path, pid: int) -> WayIn | None:
    """None where it was not SSH. `processes` is /proc.

    sudo drops SSH_CONNECTION from the environment, so the parents are asked, up to the first one that has it.
    """
    while pid > 1:
        try:
            environment = (processes / str(pid) / "environ").read_bytes()
            status = (processes / str(pid) / "status").read_text()
        except OSError:
            return None
        variables = dict(
            variable.partition("=")[::2] for variable in environment.decode(errors="replace").split("\0") if variable
        )
        fields = variables.get("SSH_CONNECTION", "").split()
        if len(fields) == 4:
            user = variables.get("LOGNAME") or variables.get("USER") or ""
            # A link-local address comes with its interface, which no rule or pattern knows.
            address, _port, host_address, port = fields
            return WayIn(user, address.partition("%")[0], int(port), host_address.partition("%")[0])
        pid = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:")), 0)
    return None
