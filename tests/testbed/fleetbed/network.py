"""The network of the hosts, and the address that each of them keeps."""

from __future__ import annotations

import ipaddress
import json
import random

from .engine import TestbedError, docker, say
from .paths import locked

NETWORK = "fleet-testbed"
LABEL = "selfhost.fleet.testbed"
# The first that does not overlap with a network of this machine.
SUBNETS = ("10.213.0.0/20", "172.30.240.0/20", "192.168.208.0/20")
SUBNET_V6 = "fd5e:f1ee:7bed::/64"


def ensure_network() -> tuple[str, str]:
    """The network's IPv4 and IPv6 subnets; the latter is empty where the engine has no IPv6."""
    with locked("network"):
        found = docker("network", "inspect", NETWORK, check=False)
        if found.returncode != 0:
            _create()
            found = docker("network", "inspect", NETWORK)
    subnets = [entry["Subnet"] for entry in json.loads(found.stdout)[0]["IPAM"]["Config"]]
    return next(s for s in subnets if ":" not in s), next((s for s in subnets if ":" in s), "")


def _create() -> None:
    problems: list[str] = []
    for v6 in (("--ipv6", f"--subnet={SUBNET_V6}"), ()):
        for subnet in SUBNETS:
            made = docker("network", "create", f"--label={LABEL}=1", f"--subnet={subnet}", *v6, NETWORK, check=False)
            if made.returncode == 0:
                if not v6:
                    say(f"hosts have no IPv6: {problems[0]}")
                return
            problems.append(made.stderr.strip())
    raise TestbedError("the engine makes no network: " + "; ".join(dict.fromkeys(problems)))


def pick_addresses(subnet: str, subnet_v6: str, taken: set[str]) -> tuple[str, str]:
    """An IPv4 and an IPv6 address for a new host.

    They are drawn at random: an address that a host had a moment ago may still have an SSH connection kept for it by
    Ansible, and hosts that are made at the same time should not want the same one.
    """
    network = ipaddress.ip_network(subnet)
    while True:
        number = random.randrange(16, network.num_addresses - 1)  # noqa: S311 - no secret
        address = str(network[number])
        if address not in taken:
            return address, str(ipaddress.ip_network(subnet_v6)[number]) if subnet_v6 else ""
