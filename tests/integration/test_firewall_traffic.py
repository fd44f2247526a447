"""What the firewall does to packets: limits of new connections, the way out when it is closed, and the ICMP that IP needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

MODULE = "selfhost.fleet.firewall"
SSH = {"port": 22, "protocol": "tcp", "sources": ["any"], "why": "administration"}
OPEN = {"port": 8000, "protocol": "tcp", "sources": ["any"], "why": "open to all"}
# How many of so many connections in a row come about; arguments: address, port, how many, source.
CONNECT = """
import socket, sys
address, port, many, *source = sys.argv[1:]
made = 0
for _ in range(int(many)):
    try:
        socket.create_connection((address, int(port)), timeout=2, source_address=(source[0], 0) if source else None).close()
    except OSError:
        continue
    made += 1
print(made)
"""
# With a queue long enough for connections that come faster than a busy machine takes them.
LISTEN = """
import socket, sys
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
while True:
    listener.accept()[0].close()
"""
# The host asks for an echo; the other end answers that the packet was too big, as a router on the way would.
ECHO_4 = """
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
echo = struct.pack(">BBHHH", 8, 0, 0, 77, 1)
echo = echo[:2] + struct.pack(">H", checksum(echo)) + echo[4:]
"""
ECHO_6 = """
import socket, struct, sys
echo = struct.pack(">BBHHH", 128, 0, 0, 77, 1)
"""
SEND_4 = ECHO_4 + "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(echo, (sys.argv[1], 0))"
SEND_6 = (
    ECHO_6 + "socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6).sendto(echo, (sys.argv[1], 0))"
)
TOO_BIG_4 = (
    ECHO_4
    + """
host, here = sys.argv[1:]
header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 1500, 1, 0x4000, 64, 1, 0, socket.inet_aton(host), socket.inet_aton(here))
error = struct.pack(">BBHHH", 3, 4, 0, 0, 1300) + header + echo
error = error[:2] + struct.pack(">H", checksum(error)) + error[4:]
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(error, (host, 0))
"""
)
TOO_BIG_6 = (
    ECHO_6
    + """
host, here = sys.argv[1:]
addresses = socket.inet_pton(socket.AF_INET6, host) + socket.inet_pton(socket.AF_INET6, here)
header = struct.pack(">IHBB", 6 << 28, 1460, 58, 64) + addresses
error = struct.pack(">BBHI", 2, 0, 0, 1300) + header + echo
socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6).sendto(error, (host, 0))
"""
)
LISTEN_546 = """
import socket
listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
listener.bind(("::", 546))
while True:
    print(listener.recv(100).decode(), flush=True)
"""
SEND_547 = """
import socket, sys
text, destination, interface = sys.argv[1:]
sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sender.bind(("::", 547))
sender.sendto(text.encode(), (destination, 546, 0, socket.if_nametoindex("eth0") if interface else 0))
"""


def listen(host: Host, *ports: int) -> None:
    host.put("/root/listen.py", LISTEN)
    for port in ports:
        host.root(f"systemd-run --quiet --unit=listen-{port} python3 /root/listen.py {port}")
        host.root(f"timeout 60 sh -c 'until ss -Hltn sport = :{port} | grep -q .; do sleep 0.2; done'")


def errors_heard(host: Host, family: int) -> int:
    """Errors of the kind that path MTU discovery needs, as the kernel counts those that have come through to it."""
    if family == 6:
        return int(host.root("awk '/Icmp6InPktTooBigs/ {print $2}' /proc/net/snmp6").stdout)
    names, values = (line.split() for line in host.root("grep ^Icmp: /proc/net/snmp").stdout.splitlines())
    return int(dict(zip(names, values, strict=True))["InDestUnreachs"])


def python(host: Host, code: str, *arguments: str, user: str = "root") -> str:
    return host.root(["runuser", "-u", user, "--", "python3", "-c", code, *arguments]).stdout.strip()


def connects(host: Host, address: str, port: int, *, many: int = 1, user: str = "root", source: str = "") -> int:
    return int(python(host, CONNECT, address, str(port), str(many), *([source] if source else []), user=user))


@pytest.fixture(scope="module", params=["debian-13", "debian-12"])
def target(request: pytest.FixtureRequest, new_host: Any) -> Iterator[Host]:
    """A host that listens on port 8000, for IPv4 and IPv6."""
    made: Host = new_host("traffic", os=request.param)
    made.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; "
        "apt-get install -qy --no-install-recommends nftables iputils-ping",
        timeout=300,
    )
    listen(made, 8000)
    made.root("useradd --system notes")
    yield made


@pytest.fixture(scope="module")
def other(new_host: Any) -> Host:
    """Another host on the same link, with something to reach on two ports."""
    made: Host = new_host("other")
    listen(made, 8000, 8001)
    made.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; "
        "apt-get install -qy --no-install-recommends iputils-ping",
        timeout=300,
    )
    return made


def forget_neighbours(*hosts: Host) -> None:
    for host in hosts:
        host.root("ip neigh flush dev eth0; ip -6 neigh flush dev eth0")


def pings(host: Host, address: str) -> bool:
    return host.root(["ping", "-c", "2", "-W", "5", address], check=False).returncode == 0


@pytest.mark.parametrize("family", [4, 6])
def test_the_icmp_that_ip_needs(target: Host, other: Host, ansible: Ansible, family: int) -> None:
    for outbound in (None, []):
        ansible.module(MODULE, {"inbound": [SSH, OPEN], "outbound": outbound}, target)
        here, there = (other.address, target.address) if family == 4 else (other.address_v6, target.address_v6)
        forget_neighbours(target, other)
        assert pings(other, there)
        forget_neighbours(target, other)
        assert connects(other, there, 8000) == 1
        forget_neighbours(target, other)
        assert pings(target, here)
        # Path MTU discovery: an error about a packet of ours is let in; about one that we never sent it is not.
        heard = errors_heard(target, family)
        too_big = TOO_BIG_4 if family == 4 else TOO_BIG_6
        python(other, too_big.replace("77, 1)", "78, 1)"), there, here)
        python(target, SEND_4 if family == 4 else SEND_6, here)
        python(other, too_big, there, here)
        assert errors_heard(target, family) == heard + 1


def test_dhcpv6_answers_come_from_the_link_only(target: Host, other: Host, ansible: Ansible) -> None:
    ansible.module(MODULE, {"inbound": [SSH]}, target)
    target.put("/root/dhcp.py", LISTEN_546)
    target.root("systemd-run --quiet --unit=dhcp python3 /root/dhcp.py")
    link_local = target.root("ip -6 -o addr show dev eth0 scope link").stdout.split()[3].partition("/")[0]
    deadline = time.monotonic() + 60
    while "from the link" not in (heard := target.root("journalctl --sync; journalctl -u dhcp -o cat").stdout):
        assert time.monotonic() < deadline, heard
        python(other, SEND_547, "from elsewhere", target.address_v6, "")
        python(other, SEND_547, "from the link", link_local, "eth0")
        time.sleep(0.5)
    assert "from elsewhere" not in heard
    target.root("systemctl stop dhcp")


def test_new_connections_are_limited_by_source(target: Host, other: Host, ansible: Ansible) -> None:
    limited = {**OPEN, "rate": {"per_minute": 1, "burst": 5}}
    arguments = {"inbound": [SSH, limited], "trusted": []}
    ansible.module(MODULE, arguments, target)
    # A set's contents are no drift.
    assert connects(other, target.address, 8000, many=9) == 5
    assert ansible.module(MODULE, arguments, target)["changed"] is False
    # An IPv6 client has all of its /64, and one budget for it.
    second = other.address_v6.rpartition(":")[0] + ":fed9"
    other.root(["ip", "-6", "addr", "replace", f"{second}/64", "dev", "eth0", "nodad"])
    assert connects(other, target.address_v6, 8000, many=3) == 3
    assert connects(other, target.address_v6, 8000, many=6, source=second) == 2
    # Somebody else is not concerned.
    assert connects(target, target.address, 8000, many=9) == 9
    # The trusted are not counted.
    ansible.module(MODULE, {**arguments, "trusted": [other.address, f"{other.address_v6}/128"]}, target)
    assert connects(other, target.address, 8000, many=9) == 9


def test_ansible_without_kept_connections_stays_below_the_plans_limit(target: Host, ansible: Ansible) -> None:
    limited = {**SSH, "rate": {"per_minute": 60, "burst": 60}}
    ansible.module(MODULE, {"inbound": [limited]}, target)
    tasks = [{"name": f"task {number}", "ansible.builtin.ping": {}} for number in range(12)]
    options = ["-e", "ansible_ssh_args='-o ControlMaster=no -o ControlPath=none'", "--forks", "8"]
    ansible.playbook([{"hosts": "all", "gather_facts": False, "tasks": tasks}], [target], options=options)
    dropped = target.root("nft list chain inet selfhost_fleet input").stdout
    lines = [line for line in dropped.splitlines() if "too many at once" in line]
    assert len(lines) == 2
    assert all("counter packets 0 " in line for line in lines)


def test_the_way_out_is_closed_but_for_what_is_listed(target: Host, other: Host, ansible: Ansible) -> None:
    ways = [
        {"port": 8000, "destinations": [other.address, other.address_v6], "why": "a database"},
        {"protocol": "any", "destinations": [f"{other.address}/32"], "users": ["notes"], "why": "egress of notes"},
        *({"port": 53, "protocol": protocol, "destinations": ["any"], "why": "DNS"} for protocol in ("udp", "tcp")),
        *({"port": port, "destinations": ["any"], "users": ["root", "_apt"], "why": "apt"} for port in (80, 443)),
    ]
    assert connects(target, other.address, 8001) == 1
    arguments = {"inbound": [SSH, OPEN], "outbound": ways}
    ansible.module(MODULE, arguments, target)
    assert ansible.module(MODULE, arguments, target)["changed"] is False
    for address in (other.address, other.address_v6):
        assert connects(target, address, 8000) == 1
        assert connects(target, address, 8000, user="nobody") == 1
        assert connects(target, address, 8001) == 0
    assert connects(target, other.address, 8001, user="notes") == 1
    assert connects(target, other.address_v6, 8001, user="notes") == 0
    # Answers, loopback and packages.
    assert connects(other, target.address, 8000) == 1
    assert connects(target, "127.0.0.1", 8000) == 1
    target.root("apt-get update -q", timeout=300)
    # A host where the user is not there yet: check mode tells, and a run says what is missing.
    arguments["outbound"] = [{**ways[1], "users": ["absent"]}]
    assert ansible.module(MODULE, arguments, target, check=True)["changed"] is True
    failed = ansible.module(MODULE, arguments, target, expect_failure=True)
    assert "users that are not there: absent" in failed["msg"]
    # And open again.
    ansible.module(MODULE, {"inbound": [SSH, OPEN]}, target)
    assert connects(target, other.address, 8001) == 1
