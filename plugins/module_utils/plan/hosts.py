# GNU General Public License v3.0+ (see LICENSE)
"""From a host's own variables to the host that the plan knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .distributions import MACHINES
from .findings import Finding
from .model import Data, Host


def read_host(name: str, variables: Mapping[str, Any], findings: list[Finding]) -> Host:
    """What cannot be read is a finding, and the rest of the plan goes by the default."""
    where = f"hosts.{name}"
    return Host(
        name=name,
        address=str(variables.get("fleet_address") or variables.get("ansible_host") or name),
        os=str(variables.get("fleet_os") or "debian-13"),
        architecture=_architecture(where, variables, findings),
        ssh_port=_port(where, variables, findings),
        hardening=_hardening(where, variables, findings),
    )


def _architecture(where: str, variables: Mapping[str, Any], findings: list[Finding]) -> str:
    given = str(variables.get("fleet_architecture") or "amd64")
    if given in MACHINES:
        return given
    findings.append(
        Finding(f"{where}.fleet_architecture", f"{given} is not supported", f"Choose one of: {', '.join(MACHINES)}")
    )
    return "amd64"


def _port(where: str, variables: Mapping[str, Any], findings: list[Finding]) -> int:
    # The two differ behind an address that is shared: there the controller comes to one port, and sshd listens on another.
    name = "fleet_ssh_port" if variables.get("fleet_ssh_port") else "ansible_port"
    given = variables.get(name) or 22
    text = str(given)
    if not isinstance(given, bool) and text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    findings.append(Finding(f"{where}.{name}", f"{given!r} is no port", "Write a number from 1 to 65535"))
    return 22


def _hardening(where: str, variables: Mapping[str, Any], findings: list[Finding]) -> Data:
    given = variables.get("fleet_hardening")
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(item): wanted for item, wanted in given.items()}
    findings.append(
        Finding(
            f"{where}.fleet_hardening",
            "is no mapping: it switches single items",
            "Write it as fleet_hardening: {banner: false}, or take it out; docs/hardening.md has the items",
        )
    )
    return {}
