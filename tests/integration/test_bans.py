"""Bans on a real host: who guesses passwords is shut out for a while, and nobody else; nothing of ours keeps running for it."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

DOMAIN = "notes.test"
TLS = f"/etc/selfhost/tls/{DOMAIN}"
TABLES_OF_OTHERS = """
table ip docker_like {
    chain forward { type filter hook forward priority filter; policy drop; ct state established accept; }
    chain nat { type nat hook postrouting priority srcnat; ip saddr 172.30.0.0/16 masquerade; }
}
table inet f2b-table {
    set addr-set-sshd { type ipv4_addr; elements = { 198.51.100.7 } }
    chain f2b-chain { type filter hook input priority filter - 1; tcp dport 22 ip saddr @addr-set-sshd reject; }
}
"""
SERVICE = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(401 if self.path == "/login" else 200)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(401)
    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

ThreadingHTTPServer(("127.0.0.1", 8900), Handler).serve_forever()
"""
ROLES = ("firewall", "bans", "edge")


def roles(*names: str) -> list[dict[str, Any]]:
    tasks = [{"include_role": {"name": f"selfhost.fleet.{name}"}} for name in names]
    return [{"hosts": "all", "gather_facts": False, "tasks": tasks}]


def fleet(host: Host, *, trusted: tuple[str, ...] = (), duration: int = 3600) -> dict[str, Any]:
    """A slice as the plan makes it, with few failures: sshd's own penalties would make more of them slow."""
    limit = {"failures": 3, "window": 600, "duration": duration}
    inbound = [
        {"port": port, "protocol": "tcp", "sources": ["any"], "rate": None, "why": "test"} for port in (22, 80, 443)
    ]
    route = {"match": "prefix", "kind": "http", "upstream": "notes", "timeout": 60, "limit": None, "body_limit": None}
    site = {
        "name": "notes",
        "domains": [DOMAIN],
        "certificate": TLS,
        "upstreams": [{"name": "notes", "keepalive": 4, "servers": [{"address": "127.0.0.1", "port": 8900}]}],
        "body_limit": "1m",
        "connections_per_client": 100,
        "limits": [],
        "routes": [
            {**route, "path": "/login", "login": {"failures": [401]}},
            {**route, "path": "/", "login": None},
        ],
    }
    return {
        "bans_interval": 5,
        "fleet": {
            "os": host.os,
            "firewall": {"inbound": inbound, "outbound": None, "trusted": list(trusted)},
            "bans": {
                "limits": {"ssh": limit, "login": limit},
                "ports": {"ssh": [22], "login": [80, 443]},
                "trusted": list(trusted),
            },
            "edge": {"sites": [site]},
            "certificates": [],
        },
    }


def until(holds: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so in time: {what}"
        time.sleep(0.5)


def banned(host: Host) -> list[tuple[str, str]]:
    """Kind and source of each ban, by the command that the documentation names."""
    lines = host.root("selfhost-bans list").stdout.splitlines()
    return sorted((line.split("\t")[0], line.split("\t")[1]) for line in lines)


def look(host: Host) -> None:
    """One run of the watcher, after everything that was written has reached the journal."""
    host.root("journalctl --sync && systemctl start selfhost-bans-watch.service")


def connects(attacker: Host, address: str, port: int) -> bool:
    code = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)"
    return attacker.root(["python3", "-c", code, address, str(port)], check=False).returncode == 0


def guess_over_ssh(attacker: Host, address: str, user: str) -> None:
    options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=3"
    assert attacker.root(f"ssh {options} {user}@{address} true", check=False).returncode == 255


def request(attacker: Host, target: Host, path: str, *options: str) -> str:
    """The status that the attacker gets; 000 for no answer."""
    command = [
        "curl",
        "--silent",
        "--insecure",
        "--max-time",
        "4",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ]
    command += ["--resolve", f"{DOMAIN}:443:{target.address}", *options, f"https://{DOMAIN}{path}"]
    return attacker.root(command, check=False).stdout


@pytest.fixture(scope="module", params=["debian-13", "debian-12"])
def target(request: pytest.FixtureRequest, new_host: Any) -> Iterator[Host]:
    """A host with nginx, a program behind it, and tables of Docker's and fail2ban's kind."""
    made: Host = new_host("bans", os=request.param)
    made.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; "
        "apt-get install -qy --no-install-recommends nftables nginx openssl",
        timeout=300,
    )
    made.root(
        f"mkdir -p {TLS} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 "
        f"-subj /CN={DOMAIN} -addext subjectAltName=DNS:{DOMAIN} -keyout {TLS}/privkey.pem -out {TLS}/fullchain.pem"
    )
    made.put("/root/service.py", SERVICE)
    made.root("systemd-run --quiet --unit=notes python3 /root/service.py")
    made.root("nft -f -", stdin=TABLES_OF_OTHERS)
    yield made


@pytest.fixture(scope="module")
def of_others(target: Host) -> str:
    return others(target)


@pytest.fixture(scope="module")
def attacker(new_host: Any) -> Host:
    made: Host = new_host("attacker")
    made.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy --no-install-recommends curl",
        timeout=300,
    )
    return made


def others(host: Host) -> str:
    return host.root("nft list table ip docker_like; nft list table inet f2b-table").stdout


def test_converge(target: Host, ansible: Ansible, of_others: str) -> None:
    target.root("mv /usr/sbin/nft /usr/sbin/nft.away")
    try:
        ansible.playbook(roles("bans"), [target], variables=fleet(target), check=True)
    finally:
        target.root("mv /usr/sbin/nft.away /usr/sbin/nft")
    assert target.root("ls /etc/selfhost/bans.nft", check=False).returncode != 0
    ansible.playbook(roles(*ROLES), [target], variables=fleet(target))
    assert ansible.playbook(roles(*ROLES), [target], variables=fleet(target)).changed == []
    assert others(target) == of_others


def test_who_guesses_over_ssh_is_shut_out_of_it(target: Host, attacker: Host) -> None:
    for address in (target.address, target.address_v6):
        # Users that are not there, and one that is, with no key at all.
        for user in ("oracle", "oracle", "admin"):
            guess_over_ssh(attacker, address, user)
    look(target)
    until(lambda: len(banned(target)) == 2, "both addresses of the attacker are banned")
    (four, six) = banned(target)
    assert four == ("ssh", attacker.address)
    assert six[0] == "ssh"
    assert ipaddress.ip_address(attacker.address_v6) in ipaddress.ip_network(six[1])
    for address in (target.address, target.address_v6):
        assert not connects(attacker, address, 22)
        assert connects(attacker, address, 443), "what it was not guessed at stays open"
    # The controller's next connection.
    assert target.ssh("true").returncode == 0
    written = target.root("journalctl --unit=selfhost-bans-watch.service --output=cat").stdout
    assert f"banned {attacker.address} for 3600 s: 3 failures (ssh)" in written
    assert all(line.startswith("banned ") for line in written.splitlines()), "runs that find nothing write nothing"


def test_a_ban_is_lifted_by_hand(target: Host, attacker: Host) -> None:
    for address in (attacker.address, attacker.address_v6):
        target.root(["selfhost-bans", "lift", address])
    assert banned(target) == []
    assert connects(attacker, target.address, 22)
    refused = target.root("selfhost-bans lift 192.0.2.77", check=False)
    assert (refused.returncode, refused.stderr.strip()) == (1, "192.0.2.77 is not banned")


def test_who_guesses_at_a_login_route_is_shut_out_of_the_edge(target: Host, attacker: Host) -> None:
    # Refused, but no guesses: another route, another method.
    for path, options in (("/notes", ["--data", "x=1"]), ("/login", [])):
        for _turn in range(4):
            assert request(attacker, target, path, *options) == "401"
    look(target)
    assert banned(target) == []
    for _turn in range(3):
        assert request(attacker, target, "/login", "--data", "user=x&password=y") == "401"
    look(target)
    assert banned(target) == [("login", attacker.address)]
    assert request(attacker, target, "/") == "000"
    assert not connects(attacker, target.address, 443)
    assert connects(attacker, target.address, 22)
    # Passwords are in no log of ours.
    assert "password" not in target.root("journalctl --identifier=selfhost_login --output=cat").stdout


def test_bans_outlive_everything_but_their_time(target: Host, attacker: Host, ansible: Ansible, of_others: str) -> None:
    # A changed ruleset, changed bans, a reload, the same once more.
    variables = fleet(target, duration=7200)
    variables["fleet"]["firewall"]["inbound"].append(
        {"port": 9999, "protocol": "tcp", "sources": ["any"], "rate": None, "why": "change"}
    )
    assert ansible.playbook(roles("firewall", "bans"), [target], variables=variables).changed
    target.root("systemctl reload selfhost-bans.service selfhost-firewall.service")
    assert ansible.playbook(roles("firewall", "bans"), [target], variables=variables).changed == []
    assert banned(target) == [("login", attacker.address)]
    assert others(target) == of_others
    # It ends by itself.
    target.root("selfhost-bans lift " + attacker.address)
    target.root(f"nft add element inet selfhost_bans login_v4 '{{ {attacker.address} timeout 3s }}'")
    until(lambda: banned(target) == [], "the ban has ended")
    assert request(attacker, target, "/") == "200"


def test_the_trusted_and_who_has_logged_in_are_not_banned(target: Host, attacker: Host, ansible: Ansible) -> None:
    # From the controller's own address, which has logged in with its key.
    controller = json.loads(target.root("cat /var/lib/selfhost-bans/state.json").stdout)["accepted"]
    assert len(controller) == 1
    ansible.playbook(roles("bans"), [target], variables=fleet(target, trusted=(attacker.address,)))
    for _turn in range(4):
        assert request(attacker, target, "/login", "--data", "x=1") == "401"
    look(target)
    assert banned(target) == []
    # Not even by hand.
    target.root(f"nft add element inet selfhost_bans login_v4 '{{ {attacker.address} timeout 60s }}'")
    assert request(attacker, target, "/") == "200"
    target.root("selfhost-bans lift " + attacker.address)


def test_other_programs_cannot_speak_for_sshd(target: Host) -> None:
    line = "Invalid user x from 198.51.100.{} port {}"
    for port in range(4):
        target.root(["runuser", "-u", "nobody", "--", "logger", "--tag", "sshd", line.format(1, port)])
        target.root(["logger", "--tag", "sshd", line.format(2, port)])
    look(target)
    # Root can: so the lines are of the kind that counts.
    assert banned(target) == [("ssh", "198.51.100.2")]
    assert "198.51.100.1" not in target.root("cat /var/lib/selfhost-bans/state.json").stdout
    target.root("selfhost-bans lift 198.51.100.2")


def test_nothing_keeps_running_and_what_runs_may_do_little(target: Host) -> None:
    shown = target.root("systemctl show --property=Result,User,DynamicUser selfhost-bans-watch.service").stdout
    assert "Result=success" in shown
    assert "DynamicUser=yes" in shown
    assert target.root("systemctl is-active selfhost-bans-watch.timer").stdout.strip() == "active"
    until(lambda: "selfhost-bans" not in target.root("ps -eo args").stdout, "no process of it is left")
    words = target.root("systemd-analyze security --no-pager selfhost-bans-watch.service").stdout.splitlines()[-1]
    assert float(words.split(":")[1].split()[0]) <= 2.0, words


def test_a_flush_and_a_reboot(target: Host) -> None:
    target.root("systemctl restart nftables.service")
    target.root("timeout 60 sh -c 'until nft list table inet selfhost_bans; do sleep 0.1; done' >/dev/null 2>&1")
    target.root("nft -f -", stdin=TABLES_OF_OTHERS)
    target.restart()
    assert (
        target.root("systemctl is-active selfhost-bans.service selfhost-bans-watch.timer").stdout.split()
        == ["active"] * 2
    )
    assert banned(target) == []
    look(target)


def test_removal(target: Host, ansible: Ansible) -> None:
    target.root("nft -f -", stdin=TABLES_OF_OTHERS)
    before = others(target)
    ansible.module("selfhost.fleet.config_prune", {"keep": ["edge"], "among": ["firewall", "bans", "edge"]}, target)
    left = target.root("nft list tables").stdout.split("\n")
    assert "table inet selfhost_bans" not in left
    assert others(target) == before
    assert target.root("ls /usr/local/sbin/selfhost-bans", check=False).returncode != 0
