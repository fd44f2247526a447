"""SSH to the hosts: one key pair of the checkout, and each host's own key known before the first connection."""

from __future__ import annotations

from pathlib import Path

from .engine import run
from .image import USER
from .paths import STATE, locked

PRIVATE_KEY = STATE / "id_ed25519"


def public_key() -> str:
    with locked("key"):
        if not PRIVATE_KEY.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fleet-testbed", "-f", str(PRIVATE_KEY)])
    return PRIVATE_KEY.with_suffix(".pub").read_text()


def known_hosts(name: str) -> Path:
    """A file per host: hosts come and go in several processes at once."""
    return STATE / "known_hosts" / name


def write_known_hosts(name: str, addresses: list[str], host_keys: str) -> None:
    lines = []
    for line in host_keys.splitlines():
        kind, key = line.split()[:2]
        lines.append(f"{','.join(addresses)} {kind} {key}\n")
    file = known_hosts(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines))


def ssh_options(name: str) -> list[str]:
    """What Ansible needs beside address, user and key."""
    return [
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        f"UserKnownHostsFile={known_hosts(name)}",
    ]


def ssh_command(name: str, address: str) -> list[str]:
    options = [*ssh_options(name), "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"]
    return ["ssh", "-F", "none", "-i", str(PRIVATE_KEY), *options, f"{USER}@{address}"]
