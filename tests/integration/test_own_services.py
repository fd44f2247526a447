"""Services of a user's own on one host: a single program, and two packages of Debian's, by definitions beside the inventory and nothing else."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import pty
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Ansible, Run
from fleetbed.site import CA_ON_CLIENT, SITE, Site, main_pid, psql

EXAMPLE = REPOSITORY / "tests" / "inventories" / "own"
NEW_SERVICE = REPOSITORY / "playbooks" / "new_service.yml"
PLAN = REPOSITORY / "playbooks" / "plan.yml"
STATUS = REPOSITORY / "playbooks" / "status.yml"
RELAY, PUSH, READER = "relay.example.com", "push.example.com", "reader.example.com"
ADMIN = secrets.token_urlsafe(18)

# Connects, sends what is asked for, and says what comes back: the service's own words, and the first answer.
CONVERSATION = """
import asyncio, json, ssl, sys
from websockets.asyncio.client import connect

address, domain, ca, path, said = sys.argv[1:]

async def main():
    trust = ssl.create_default_context(cafile=ca)
    async with connect(f"wss://{domain}{path}", host=address, port=443, ssl=trust, server_hostname=domain) as made:
        print("connected", flush=True)
        if said:
            await made.send(said)
        while True:
            got = await made.recv()
            if said or json.loads(got)["event"] == "message":
                print(got.strip())
                return

asyncio.run(asyncio.wait_for(main(), 45))
"""


@dataclasses.dataclass
class Own:
    """A host, the folder of its inventory, and what runs there at the moment."""

    site: Site
    program: Path
    services: dict[str, Any]

    @property
    def host(self) -> Host:
        return self.site.host

    def run(self, *, playbook: Path = SITE, changes: dict[str, Any] | None = None, **options: Any) -> Run:
        services = {**self.services, **(changes or {})}
        groups = {"edge": [self.host], "app": [self.host]}
        if "miniflux" in services:
            groups["postgres"] = [self.host]
        variables = {**self.site.variables, "fleet_services": services}
        return self.site.ansible.playbook(playbook, [self.host], groups=groups, variables=variables, **options)

    def says(self, domain: str, path: str, said: str = "") -> str:
        return self.site.client.root(["python3", "-c", CONVERSATION, *self.arguments(domain, path, said)]).stdout

    def arguments(self, domain: str, path: str, said: str) -> list[str]:
        return [self.host.address, domain, CA_ON_CLIENT, path, said]

    def changes(self) -> list[Any]:
        """What a further run changes."""
        return [
            (outcome.task, outcome.result.get("diff"), outcome.result.get("units")) for outcome in self.run().changed
        ]

    def packages(self) -> set[str]:
        listing = self.host.root(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n"]).stdout
        return {line.split()[0] for line in listing.splitlines() if line.endswith("ii ")}

    def pids(self, *components: str) -> dict[str, int]:
        return {name: main_pid(self.host, f"{name}@blue.service") for name in components}


def example() -> dict[str, Any]:
    """The entries of the example, with secrets."""
    services: dict[str, Any] = yaml.safe_load((EXAMPLE / "inventory" / "group_vars" / "all.yml").read_text())[
        "fleet_services"
    ]
    services["miniflux"]["secrets"] = {
        "MINIFLUX_DATABASE_PASSWORD": secrets.token_hex(24),
        "MINIFLUX_ADMIN_PASSWORD": ADMIN,
    }
    return services


def answers(program: Path, **changes: str) -> dict[str, str]:
    given = {
        "name": "relay",
        "description": "Says again what it is told",
        "program": str(program),
        "version": "0.4.1",
        "arguments": "--address={listen} --port={port.http} --devconsole cat",
        "version_arguments": "none",  # Debian's build calls itself DEVBUILD
        "websocket": "/",
        "domain": RELAY,
    } | changes
    return {f"new_service_{name}": value for name, value in given.items()}


def entry_in_comments(definition: Path) -> dict[str, Any]:
    """The lines that a definition's comments have for the inventory, as they are."""
    comments = definition.read_text().partition("\n---\n")[0].splitlines()
    start = next(number for number, line in enumerate(comments) if line.endswith(f" {definition.stem}:"))
    lines = [line.removeprefix("#") for line in comments[start : comments.index("#", start)]]
    entry: dict[str, Any] = yaml.safe_load("\n".join(lines))
    return entry


@pytest.fixture(scope="module")
def program(client: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program in one file, which serves HTTP and WebSocket: websocketd, out of Debian's package."""
    packed = client.root(
        "cd $(mktemp -d); apt-get download -qq websocketd; dpkg-deb -x websocketd_*.deb .; base64 usr/bin/websocketd",
        timeout=120,
    ).stdout
    path = tmp_path_factory.mktemp("program") / "websocketd"
    path.write_bytes(base64.b64decode(packed))
    return path


@pytest.fixture(scope="module")
def begun(
    new_host: Callable[..., Host], client: Host, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Own, Run]:
    """A definition that new_service.yml writes, and those of the example, beside the inventory; nothing has been deployed."""
    folder = tmp_path_factory.mktemp("own")
    host = new_host("own")
    shutil.copytree(EXAMPLE / "services", folder / "services")
    site = Site(host, client, Ansible(folder), {"fleet_local_ca_dir": str(folder / "ca")}, {})
    written = site.ansible.playbook(NEW_SERVICE, [host], options=["--extra-vars", json.dumps(answers(program))])
    services = entry_in_comments(folder / "services" / "relay.yml") | {"ntfy": example()["ntfy"]}
    return Own(site, program, services), written


@pytest.fixture(scope="module")
def deployed(begun: tuple[Own, Run]) -> Own:
    """The relay and the package ntfy, which ran there already as Debian starts it: on port 80."""
    own = begun[0]
    own.host.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; apt-get install -qqy --no-install-recommends ntfy;"
        "systemctl enable --now ntfy.service",
        timeout=300,
    )
    own.host.root("for i in $(seq 50); do ss -Hltn 'sport = :80' | grep -q . && exit; sleep 0.2; done; exit 1")
    own.run()
    own.site.client.put(CA_ON_CLIENT, (Path(own.site.variables["fleet_local_ca_dir"]) / "ca.pem").read_text())
    return own


@pytest.fixture(scope="module")
def with_database(deployed: Own) -> tuple[Own, dict[str, int], Run]:
    """A third service comes, a package with a database; with the processes of the others from before, and the run."""
    before = deployed.pids("relay-server", "ntfy-server")
    deployed.services["miniflux"] = example()["miniflux"]
    packages = deployed.packages()
    foretold = deployed.run(check=True)
    installed = next(outcome for outcome in foretold.changed if "installed" in outcome.result)
    assert {"miniflux", "dbconfig-no-thanks"} <= set(installed.result["installed"])
    assert deployed.packages() == packages
    return deployed, before, deployed.run()


# A definition by questions


def test_a_definition_is_written_once_and_never_again(begun: tuple[Own, Run]) -> None:
    own, written = begun
    path = own.site.ansible.folder / "services" / "relay.yml"
    text = path.read_text()
    assert "selfhost.fleet.site" in written.of("Say what is left to do").result["msg"].splitlines()[-1]
    again = own.site.ansible.playbook(
        NEW_SERVICE,
        [own.host],
        options=["--extra-vars", json.dumps(answers(own.program, description="another"))],
        expect_failure=True,
    )
    assert "there is a definition of relay already" in again.output
    assert path.read_text() == text


def test_wrong_answers_are_refused_all_at_once(begun: tuple[Own, Run]) -> None:
    own = begun[0]
    wrong = answers(Path("/nowhere"), name="Relay", domain="https://x", port="80")
    run = own.site.ansible.playbook(
        NEW_SERVICE, [own.host], options=["--extra-vars", json.dumps(wrong)], expect_failure=True
    )
    for words in ("new_service_name: is Relay", "/nowhere is no file", "new_service_domain", "new_service_port: is 80"):
        assert words in run.output
    assert not (own.site.ansible.folder / "services" / "Relay.yml").exists()


def test_it_asks_at_a_terminal(begun: tuple[Own, Run], tmp_path: Path) -> None:
    own = begun[0]
    inventory = tmp_path / "inventory"
    shutil.copytree(EXAMPLE / "inventory", inventory)
    controller, terminal = pty.openpty()
    command = [str(own.site.ansible.program), "-i", str(inventory), str(NEW_SERVICE)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    typed = ["bell", "Rings", "ntfy", "", "serve", "", "", "/v1/health", "", "yes", "no", "bell.example.com", ""]
    said = ""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(controller, 4096).decode(errors="replace"):
            said += part
            # One prompt after the other: what is typed before a prompt is thrown away.
            if typed and re.search(r"(\]|\?|[a-z)]): ?\Z", part):
                os.write(controller, f"{typed.pop(0)}\n".encode())
    os.close(controller)
    assert process.wait(60) == 0, said
    written = yaml.safe_load((tmp_path / "services" / "bell.yml").read_text())
    server = written["components"]["server"]
    assert server["release"] == {"package": "ntfy"} and server["command"] == ["{executable}", "serve"]
    assert server["state"] and "database" not in written
    # Ansible takes every file of an inventory's folder for an inventory: a definition is not among them.
    entry = entry_in_comments(tmp_path / "services" / "bell.yml")
    (inventory / "group_vars" / "all.yml").write_text(yaml.safe_dump({"fleet_services": entry}))
    planned = subprocess.run(
        [str(own.site.ansible.program), "-i", str(inventory), str(PLAN)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bell" in planned.stdout and "is not a valid group" not in planned.stdout + planned.stderr


# A program in one file, and a package with state of its own


def test_a_program_in_one_file_serves_http_and_websocket(deployed: Own) -> None:
    assert deployed.site.status("/", name=RELAY) == 200
    assert deployed.says(RELAY, "/", "hello").splitlines() == ["connected", "hello"]


def test_a_package_runs_under_a_unit_of_ours_and_not_under_its_own(deployed: Own) -> None:
    host = deployed.host
    shown = host.root("systemctl show -p LoadState,ActiveState ntfy.service").stdout.split()
    assert shown == ["LoadState=masked", "ActiveState=inactive"]
    assert deployed.site.status("/v1/health", name=PUSH) == 200
    sent = deployed.site.curl("/v1/health", "--output", "/dev/null", "--dump-header", "-", name=PUSH).stdout.lower()
    assert "referrer-policy: no-referrer" in sent and "x-frame-options" not in sent and "x-content-type-options" in sent
    pid = main_pid(host, "ntfy-server@blue.service")
    assert host.root(f"readlink /proc/{pid}/exe; ps -o user= -p {pid}").stdout.split() == ["/usr/bin/ntfy", "ntfy"]
    score = host.root("systemd-analyze security --no-pager ntfy-server@blue.service | tail -1").stdout
    assert float(re.findall(r"([0-9.]+) ", score)[0]) <= 1.0, score


def test_what_it_has_in_its_folder_survives_and_reaches_subscribers_by_websocket(deployed: Own) -> None:
    topic = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        listener = subprocess.Popen(
            ["docker", "exec", deployed.site.client.container, "python3", "-c", CONVERSATION]
            + deployed.arguments(PUSH, f"/{topic}/ws", ""),
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(listener.kill)
        assert listener.stdout and listener.stdout.readline() == "connected\n"
        deployed.site.curl(f"/{topic}", "--fail", "--data", "the house is on fire", name=PUSH)
        assert json.loads(listener.stdout.readline())["message"] == "the house is on fire"
    assert deployed.host.root("stat -c %U /var/lib/ntfy/cache.db").stdout == "ntfy\n"
    deployed.host.root("systemctl restart ntfy-server@blue.service")
    kept = deployed.site.curl(
        f"/{topic}/json?poll=1", "--fail", "--retry", "10", "--retry-all-errors", "--retry-delay", "1", name=PUSH
    ).stdout
    assert json.loads(kept)["message"] == "the house is on fire"


def test_without_a_database_there_is_no_postgresql(deployed: Own) -> None:
    assert [name for name in deployed.packages() if name.startswith(("postgresql", "pgbouncer"))] == []


def test_status_has_dpkg_s_version_and_a_second_run_changes_nothing(deployed: Own) -> None:
    version = deployed.host.root(["dpkg-query", "-W", "-f", "${Version}", "ntfy"]).stdout
    table = deployed.run(playbook=STATUS).output
    assert re.search(rf"ntfy/server +\S+ +{re.escape(version)} +blue +healthy", table), table
    assert deployed.changes() == []


# A third one, with a database


def test_another_service_leaves_those_alone_that_run(with_database: tuple[Own, dict[str, int], Run]) -> None:
    own, before, _run = with_database
    assert own.pids(*before) == before
    assert [own.site.status(path, name=name) for name, path in ((RELAY, "/"), (PUSH, "/v1/health"))] == [200, 200]


def test_a_package_with_a_database_has_it_through_the_pool(with_database: tuple[Own, dict[str, int], Run]) -> None:
    own, _before, _run = with_database
    options = ("--user", f"admin:{ADMIN}", "--header", "Content-Type: application/json")
    made = own.site.curl("/v1/categories", "--fail", *options, "--data", '{"title": "Engineering"}', name=READER).stdout
    assert json.loads(made)["title"] == "Engineering"
    assert psql(own.host, "select title from categories where title = 'Engineering'", "miniflux") == ["Engineering"]
    pid = main_pid(own.host, "miniflux-server@blue.service")
    peers = own.host.root(f"ss -Htnp state established | grep 'pid={pid},' | awk '{{print $4}}' | sort -u").stdout
    assert "127.0.0.1:6432" in peers.split() and "127.0.0.1:5432" not in peers.split()
    assert psql(own.host, "select datname from pg_database where not datistemplate", "miniflux") == [
        "postgres",
        "miniflux",
    ]


def test_its_own_unit_never_ran(with_database: tuple[Own, dict[str, int], Run]) -> None:
    own, _before, _run = with_database
    assert own.host.root("journalctl --no-pager -q _SYSTEMD_UNIT=miniflux.service + UNIT=miniflux.service").stdout == ""
    assert own.host.root("systemctl show -p LoadState --value miniflux.service").stdout == "masked\n"


def test_services_share_nothing(with_database: tuple[Own, dict[str, int], Run]) -> None:
    own, _before, _run = with_database
    names = ("relay", "ntfy", "miniflux")
    units = [f"{name}-server@blue.service" for name in names]
    users = own.host.root(["systemctl", "show", "--property=User", "--value", *units]).stdout.split()
    assert users == list(names)
    listening = own.host.root("ss -Hltn | awk '{print $4}' | grep ^127.0.0.1:8 | sort -u").stdout.split()
    assert len(listening) == 3
    certificates = {
        domain: own.site.curl("/", "--output", "/dev/null", "--write-out", "%{certs}", name=domain).stdout
        for domain in (RELAY, PUSH, READER)
    }
    for domain, certificate in certificates.items():
        assert f"DNS:{domain}" in certificate and len(re.findall(r"DNS:", certificate)) == 1


def test_a_version_that_debian_does_not_have_harms_nobody(with_database: tuple[Own, dict[str, int], Run]) -> None:
    own, _before, _run = with_database
    running = own.pids("relay-server", "ntfy-server", "miniflux-server")
    other = {"miniflux": {**own.services["miniflux"], "version": "2.9.0"}}
    run = own.run(changes=other, expect_failure=True)
    assert "miniflux 2.9.0" in run.failed[-1].result["msg"]
    assert own.pids(*running) == running
    assert own.site.status("/healthcheck", name=READER) == 200
    own.run()
    assert own.pids(*running) == running


def test_a_newer_revision_of_the_package_is_what_runs_next(with_database: tuple[Own, dict[str, int], Run]) -> None:
    own, _before, _run = with_database
    others = own.pids("relay-server", "miniflux-server")
    own.host.root(
        "cd $(mktemp -d); apt-get download -qq ntfy; dpkg-deb -R ntfy_*.deb x; rm ntfy_*.deb;"
        "sed -i 's/^Version: .*/&+test1/' x/DEBIAN/control; dpkg-deb -b x new.deb; dpkg -i new.deb",
        timeout=300,
    )
    # As Debian's own unit is masked, nobody started the newer one.
    assert "(deleted)" in own.host.root(f"readlink /proc/{main_pid(own.host, 'ntfy-server@blue.service')}/exe").stdout
    own.run()
    assert (
        own.host.root(f"readlink /proc/{main_pid(own.host, 'ntfy-server@blue.service')}/exe").stdout
        == "/usr/bin/ntfy\n"
    )
    releases = own.host.root("ls /opt/ntfy/server/releases; readlink /opt/ntfy/server/blue").stdout.split()
    assert len(releases) == 2 and releases[0].endswith("+test1") and releases[1] == f"releases/{releases[0]}"
    assert own.pids(*others) == others
    assert own.changes() == []


def test_all_come_back_after_a_reboot_and_nothing_of_debians_own(
    with_database: tuple[Own, dict[str, int], Run],
) -> None:
    own, _before, _run = with_database
    own.host.restart()
    retries = ("--fail", "--retry", "30", "--retry-all-errors", "--retry-delay", "1")
    for domain, path in ((RELAY, "/"), (PUSH, "/v1/health"), (READER, "/healthcheck")):
        own.site.curl(path, *retries, "--output", "/dev/null", name=domain)
    packaged = ["ntfy.service", "ntfy-client.service", "miniflux.service"]
    # Its exit status says only that they are not active; which state each is in is asserted.
    states = own.host.root(["systemctl", "is-active", *packaged], check=False).stdout.split()
    assert states == ["inactive"] * 3


def test_one_that_is_taken_away_leaves_the_others_untouched(with_database: tuple[Own, dict[str, int], Run]) -> None:
    own, _before, _run = with_database
    others = own.pids("relay-server", "miniflux-server")
    del own.services["ntfy"]
    own.run()
    assert own.pids(*others) == others
    assert [own.site.status(path, name=name) for name, path in ((RELAY, "/"), (READER, "/healthcheck"))] == [200, 200]
    assert own.site.status("/v1/health", name=PUSH) != 200
    left = own.host.root(
        "systemctl list-units --all --no-legend --plain 'ntfy*'; ls /etc/nginx/selfhost /etc/systemd/system"
    ).stdout
    assert "ntfy-server" not in left and "ntfy.conf" not in left
    # Debian's package is there as it was, its unit no longer masked: it neither runs nor will.
    assert own.host.root("systemctl show -p LoadState,ActiveState,UnitFileState ntfy.service").stdout.split() == [
        "LoadState=loaded",
        "ActiveState=inactive",
        "UnitFileState=disabled",
    ]
    # Data is nobody's to take by the way.
    assert own.host.root("ls /var/lib/ntfy").stdout.split() != []
    assert own.changes() == []
