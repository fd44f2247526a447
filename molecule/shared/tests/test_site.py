"""What a host of the whole site must be like, whatever its release and whatever Fluxbase's contract."""

from __future__ import annotations

import socket
import ssl

import pytest
from testinfra.host import Host

DOMAIN = "fluxbase.localhost"
ENVIRONMENT_FILES = ("/etc/fluxbase/server.blue.env",)
OPEN = 22, 80, 443


def out(host: Host, command: str) -> str:
    done = host.run(command)
    assert done.succeeded, done.stderr
    return str(done.stdout).strip()


def unit(host: Host) -> str:
    """The slot that serves."""
    units = out(
        host, "systemctl list-units --plain --no-legend --state=active 'fluxbase-server@*.service'"
    ).splitlines()
    assert len(units) == 1, units
    return units[0].split()[0]


def address(host: Host) -> str:
    return str(host.backend.get_variables()["ansible_host"])


def https(host: Host, path: str) -> tuple[int, str]:
    """As a user comes: from outside, through the firewall and nginx, trusting the fleet's own authority only."""
    trusted = ssl.create_default_context(cafile=f"{host.backend.get_variables()['fleet_local_ca_dir']}/ca.pem")
    with (
        socket.create_connection((address(host), 443), timeout=10) as plain,
        trusted.wrap_socket(plain, server_hostname=DOMAIN) as connection,
    ):
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return int(answer.split()[1]), answer


def password(host: Host) -> str:
    path = f"{host.backend.get_variables()['passwords']}/database"
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return file.read().split()[0]


def test_one_slot_of_the_service_runs(host: Host) -> None:
    assert out(host, f"systemctl is-active {unit(host)}") == "active"
    assert out(host, f"systemctl is-enabled {unit(host)}") == "enabled"
    assert out(host, "systemctl list-units --failed --plain --no-legend") == ""


@pytest.mark.parametrize("service", ["nginx", "pgbouncer", "postgresql"])
def test_what_it_stands_on_runs_and_comes_back_after_a_boot(host: Host, service: str) -> None:
    assert host.service(service).is_running
    assert host.service(service).is_enabled


def test_it_answers_through_nginx(host: Host) -> None:
    status, answer = https(host, "/health")
    assert status == 200, answer


def test_its_metrics_do_not(host: Host) -> None:
    assert https(host, "/metrics")[0] in (403, 404)


def test_the_firewall_has_its_table_and_comes_back_after_a_boot(host: Host) -> None:
    rules = out(host, "nft list table inet selfhost_fleet")
    assert "hook input" in rules
    assert "policy drop" in rules
    assert host.service("selfhost-firewall").is_enabled


def test_no_other_port_that_listens_can_be_reached(host: Host) -> None:
    listening = {int(line.split()[3].rpartition(":")[2]) for line in out(host, "ss -Hlnt").splitlines()}
    assert listening >= {*OPEN, 5432, 6432}
    reached = set()
    for port in listening:
        try:
            with socket.create_connection((address(host), port), timeout=1):
                reached.add(port)
        except OSError:
            continue
    assert reached == set(OPEN)


def test_postgresql_checks_its_pages(host: Host) -> None:
    assert out(host, "runuser -u postgres -- psql -AtXc 'SHOW data_checksums'") == "on"


def test_the_pooler_holds_no_password_that_could_be_read(host: Host) -> None:
    files = out(host, "find /etc/pgbouncer -type f").splitlines()
    assert "/etc/pgbouncer/userlist.txt" in files
    for file in files:
        assert password(host) not in host.file(file).content_string, file
    users = host.file("/etc/pgbouncer/userlist.txt").content_string.splitlines()
    assert users
    for line in users:
        assert line.startswith(";") or line.split()[1].startswith('"SCRAM-SHA-256$')


def test_the_service_is_exposed_to_little(host: Host) -> None:
    verdict = out(host, f"systemd-analyze security --no-pager {unit(host)}").splitlines()[-1]
    assert float(verdict.partition("exposure level for")[2].split()[1]) <= 1.0, verdict


@pytest.mark.parametrize("path", ENVIRONMENT_FILES)
def test_its_environment_is_for_root_alone(host: Host, path: str) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
