"""The firewall on a real host: what it lets in, what it leaves alone, and how it keeps the operator's way in."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.keys import ssh_options
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Ansible

MODULE = "selfhost.fleet.firewall"
SSH = {"port": 22, "protocol": "tcp", "sources": ["any"], "why": "administration"}
OPEN = {"port": 8000, "protocol": "tcp", "sources": ["any"], "why": "open to all"}
RULES = {"inbound": [SSH, OPEN], "rollback_after": 60}  # on a machine that does much else
# Another way in than the one that the rules are asked to keep: to the firewall it is a port like any other.
RELAY = 2022
OTHERS = """
table ip docker_like {
    chain forward { type filter hook forward priority filter; policy drop; ct state established accept; }
    chain nat { type nat hook postrouting priority srcnat; ip saddr 172.30.0.0/16 masquerade; }
}
table inet f2b-table {
    set addr-set-sshd { type ipv4_addr; elements = { 198.51.100.7 } }
    chain f2b-chain { type filter hook input priority filter - 1; tcp dport 22 ip saddr @addr-set-sshd reject; }
}
"""
ROLE = [{"hosts": "all", "gather_facts": False, "tasks": [{"include_role": {"name": "selfhost.fleet.firewall"}}]}]


def reaches(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def until(holds: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so in time: {what}"
        time.sleep(0.2)


def others(host: Host) -> str:
    return host.root("nft list table ip docker_like; nft list table inet f2b-table").stdout


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

    # Somebody else's tables, as Docker's and fail2ban's. Every test below looks at them again.
    served.root("nft -f -", stdin=OTHERS)
    other = others(served)

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

    assert others(served) == other


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


@pytest.fixture
def relay(served: Host) -> Iterator[int]:
    """sshd behind another port of the host: it believes that its client is on loopback, where no rule cuts anybody off."""
    unit = f"--unit=relay --socket-property=ListenStream=[::]:{RELAY} --socket-property=BindIPv6Only=both"
    served.root(f"systemd-run --quiet {unit} /usr/lib/systemd/systemd-socket-proxyd 127.0.0.1:22")
    yield RELAY
    served.root("systemctl stop relay.socket relay.service")


def through_relay(host: Host, address: str) -> dict[str, Any]:
    options = [*ssh_options(host.name), "-o", f"HostKeyAlias={host.address}"]
    return {"ansible_host": address, "ansible_port": RELAY, "ansible_ssh_common_args": shlex.join(options)}


def rules_that_cut_the_relay(rollback_after: int) -> list[dict[str, Any]]:
    load = {"name": "load", MODULE: {"inbound": [SSH], "rollback_after": rollback_after}}
    return [{"hosts": "all", "gather_facts": False, "tasks": [load]}]


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_rules_that_cut_the_controller_off_are_taken_back(
    served: Host, ansible: Ansible, relay: int, family: str
) -> None:
    """Really cut: the rules are in force, and the fresh connection meets them."""
    address = served.address if family == "IPv4" else served.address_v6
    keep = {"port": relay, "protocol": "tcp", "sources": ["any"], "why": "the controller's way in"}
    ansible.module(MODULE, {**RULES, "inbound": [SSH, OPEN, keep]}, served)
    before, file, other = table(served), served.read("/etc/selfhost/firewall.nft"), others(served)
    options = ["-e", json.dumps({**through_relay(served, address), "ansible_ssh_timeout": 4})]
    run = ansible.playbook(rules_that_cut_the_relay(12), [served], options=options, expect_failure=True)
    assert "cuts the controller off" in run.of("load").result["msg"]
    assert table(served) == before
    assert served.read("/etc/selfhost/firewall.nft") == file
    assert others(served) == other
    assert reaches(address, relay)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_controller_that_dies_before_it_has_confirmed(
    served: Host, ansible: Ansible, relay: int, family: str, tmp_path: Path
) -> None:
    address = served.address if family == "IPv4" else served.address_v6
    keep = {"port": relay, "protocol": "tcp", "sources": ["any"], "why": "the controller's way in"}
    ansible.module(MODULE, {**RULES, "inbound": [SSH, OPEN, keep]}, served)
    before, file = table(served), served.read("/etc/selfhost/firewall.nft")
    variables = {**through_relay(served, address), "ansible_ssh_timeout": 60}
    (tmp_path / "play.json").write_text(json.dumps(rules_that_cut_the_relay(25)))
    (tmp_path / "hosts.json").write_text(json.dumps(ansible.inventory([served], {}, {})))
    command = [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.json", tmp_path / "play.json"]
    controller = subprocess.Popen(
        [*map(str, command), "-e", json.dumps(variables)],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until(lambda: not reaches(address, relay), "the new rules are loaded")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(controller.pid, signal.SIGKILL)
        assert controller.wait() == -signal.SIGKILL, "it had ended before it was killed"
    # The worker that was loading them has a session of its own: it lives, goes on connecting, and gets through when they have
    # been taken back. By then the next run's rules may wait; this is how they look to it.
    late = ansible.module(
        MODULE, {"inbound": [SSH], "state": "confirmed", "change": "another"}, served, expect_failure=True
    )
    assert "that of another run waits now" in late["msg"]
    until(lambda: reaches(address, relay), "the host takes the rules back by itself")
    assert table(served) == before
    assert served.read("/etc/selfhost/firewall.nft") == file
    # The next run is as any other.
    assert ansible.module(MODULE, RULES, served)["changed"] is True


def test_a_refused_ruleset_changes_nothing(served: Host, ansible: Ansible) -> None:
    before = table(served)
    mistakes = [SSH, {**OPEN, "port": 70000}, {**OPEN, "sources": ["192.0.2.1/24"]}]
    failed = ansible.module(MODULE, {"inbound": mistakes}, served, expect_failure=True)
    assert "inbound[1]" in failed["msg"]
    assert "inbound[2]" in failed["msg"]
    assert table(served) == before


def test_the_role_and_a_reboot(served: Host, ansible: Ansible) -> None:
    other = others(served)
    variables = {"fleet": {"firewall": {"inbound": [SSH, OPEN], "outbound": None, "trusted": []}}}
    ansible.playbook(ROLE, [served], variables=variables, check=True)
    ansible.playbook(ROLE, [served], variables=variables)
    assert ansible.playbook(ROLE, [served], variables=variables).changed == []
    served.root("systemctl reload selfhost-firewall.service")
    assert others(served) == other
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
