"""The firewall on a real host: what it lets in, what it leaves alone, and how it keeps the operator's way in."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

MODULE = "selfhost.fleet.firewall"
SSH = {"port": 22, "protocol": "tcp", "sources": ["any"], "why": "administration"}
OPEN = {"port": 8000, "protocol": "tcp", "sources": ["any"], "why": "open to all"}
RULES = {"inbound": [SSH, OPEN], "rollback_after": 20}
ROLE = [{"hosts": "all", "gather_facts": False, "tasks": [{"include_role": {"name": "selfhost.fleet.firewall"}}]}]


def reaches(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def table(host: Host) -> str:
    return host.root("nft --stateless list table inet selfhost_fleet").stdout


@pytest.fixture(scope="module", params=["debian-13", "debian-12"])
def served(request: pytest.FixtureRequest, new_host: Any) -> Iterator[Host]:
    """A host without nftables that listens on three ports, for IPv4 and IPv6."""
    made: Host = new_host("firewall", os=request.param)
    for port in (8000, 8001, 8002):
        unit = f"systemd-run --quiet --unit=listen-{port}"
        made.root(f"{unit} python3 -m http.server --directory /var/empty --bind :: {port}")
    deadline = time.monotonic() + 20
    while not all(reaches(made.address, port) for port in (8000, 8001, 8002)):
        assert time.monotonic() < deadline, "the host does not listen"
        time.sleep(0.1)
    yield made


def test_from_a_bare_host_to_one_that_holds_its_rules(served: Host, ansible: Ansible) -> None:
    # A bare host: check mode passes and changes nothing.
    served.root("rm -f /usr/sbin/nft")
    assert ansible.module(MODULE, RULES, served, check=True)["changed"] is True
    assert served.root("ls -d /etc/selfhost", check=False).returncode != 0
    served.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy --reinstall nftables",
        timeout=300,
    )

    # Somebody else's table, as Docker's.
    served.root(
        "nft add table ip other; nft add chain ip other passing '{ type filter hook forward priority 0; policy drop; }'"
    )
    other = served.root("nft list table ip other").stdout

    first = ansible.module(MODULE, RULES, served, diff=True)
    assert (first["changed"], first["pending"], first["drift"]) == (True, False, False)
    assert "dport 8000" in first["diff"]["after"]
    assert reaches(served.address, 8000)
    assert not reaches(served.address, 8001)
    assert served.root("systemctl list-units --all --plain --no-legend 'selfhost-firewall-rollback*'").stdout == ""
    assert ansible.module(MODULE, RULES, served)["changed"] is False

    # A rule taken out, and one slipped in, by hand.
    served.root("nft insert rule inet selfhost_fleet input tcp dport 8001 accept")
    assert reaches(served.address, 8001)
    assert ansible.module(MODULE, RULES, served, check=True)["drift"] is True
    assert reaches(served.address, 8001), "check mode changed something"
    assert ansible.module(MODULE, RULES, served)["drift"] is True
    assert not reaches(served.address, 8001)

    assert served.root("nft list table ip other").stdout == other


def test_sources(served: Host, ansible: Ansible) -> None:
    gateway = served.root("ip -4 route show default").stdout.split("via ")[1].split()[0]
    stranger = {"port": 8001, "protocol": "tcp", "sources": ["198.51.100.0/24", "2001:db8::/32"], "why": "a stranger"}
    friend = {"port": 8002, "protocol": "tcp", "sources": [gateway, "fe80::/10"], "why": "the controller"}
    ansible.module(MODULE, {**RULES, "inbound": [SSH, stranger, friend]}, served)
    assert not reaches(served.address, 8000)
    assert not reaches(served.address, 8001)
    assert reaches(served.address, 8002)


def test_the_way_in_is_never_given_up(served: Host, ansible: Ansible) -> None:
    before = table(served)
    for inbound in ([OPEN], [OPEN, {**SSH, "sources": ["198.51.100.1"]}], [OPEN, {**SSH, "port": 2222}]):
        for check in (True, False):
            failed = ansible.module(MODULE, {**RULES, "inbound": inbound}, served, check=check, expect_failure=True)
            assert "would cut" in failed["msg"]
            assert "port 22/tcp" in failed["msg"]
    assert table(served) == before


def test_rules_that_the_controller_cannot_confirm_are_taken_back(served: Host, ansible: Ansible) -> None:
    before, file = table(served), served.read("/etc/selfhost/firewall.nft")
    try:
        run = ansible.playbook(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "tasks": [
                        # New connections fail from here on; the present one lives.
                        {"name": "stop", "ansible.builtin.command": "systemctl stop ssh.socket ssh.service"},
                        {"name": "load", MODULE: {"inbound": [SSH], "rollback_after": 5}},
                    ],
                }
            ],
            [served],
            expect_failure=True,
        )
    finally:
        served.root("systemctl start ssh.service")
    assert "former one is in force" in run.of("load").result["msg"]
    assert table(served) == before
    assert served.read("/etc/selfhost/firewall.nft") == file


def test_a_refused_ruleset_changes_nothing(served: Host, ansible: Ansible) -> None:
    before = table(served)
    mistakes = [SSH, {**OPEN, "port": 70000}, {**OPEN, "sources": ["192.0.2.1/24"]}]
    failed = ansible.module(MODULE, {"inbound": mistakes}, served, expect_failure=True)
    assert "inbound[1]" in failed["msg"]
    assert "inbound[2]" in failed["msg"]
    assert table(served) == before


def test_the_role_and_a_reboot(served: Host, ansible: Ansible) -> None:
    variables = {"fleet": {"firewall": {"inbound": [SSH, OPEN]}}}
    ansible.playbook(ROLE, [served], variables=variables, check=True)
    ansible.playbook(ROLE, [served], variables=variables)
    assert ansible.playbook(ROLE, [served], variables=variables).changed == []
    loaded = table(served)
    served.restart()
    assert table(served) == loaded
    assert served.root("systemctl is-active selfhost-firewall.service").stdout.strip() == "active"
    # Debian's own unit flushes every table; ours is loaded again after it.
    served.root("systemctl restart nftables.service")
    # That is a job of systemd's own, which the command above does not wait for.
    served.root("timeout 30 sh -c 'until nft list table inet selfhost_fleet; do sleep 0.1; done' >/dev/null 2>&1")
    assert table(served) == loaded
    assert ansible.playbook(ROLE, [served], variables=variables).changed == []
