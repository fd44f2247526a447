"""A fleet: an edge, two application hosts of different releases, and a database host, as users and neighbours meet them."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fleetbed.engine import Completed
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Ansible, Run, Running
from fleetbed.service import DOMAIN, SHARED_SETTINGS, fluxbase
from fleetbed.upgrade import OLD, VARIANTS, nothing_is_left_of_the_rehearsal, once_in, schema, version
from fleetbed.visitors import visited

UNIT = "fluxbase-server@blue.service"
CA_ON_CLIENT = "/root/fleet-ca.pem"

PORTS = """
import itertools, json, socket, sys
from concurrent.futures import ThreadPoolExecutor

addresses, ports = map(str.split, sys.argv[1:])
pairs = list(itertools.product(addresses, map(int, ports)))

def is_open(pair):
    try:
        socket.create_connection(pair, timeout=3).close()
    except OSError:
        return False
    return True

with ThreadPoolExecutor(len(pairs)) as pool:
    print(json.dumps([port for (_, port), found in zip(pairs, pool.map(is_open, pairs)) if found]))
"""

# Asks until the file is there; prints how often which status came from which host.
TRAFFIC = """
import collections, json, os, socket, ssl, sys, time
from http.client import HTTPException, HTTPSConnection

address, domain, ca, end = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca)
came = collections.Counter()
while not os.path.exists(end):
    connection = HTTPSConnection(domain, context=trust, timeout=30)
    try:
        connection.sock = trust.wrap_socket(socket.create_connection((address, 443), 30), server_hostname=domain)
        connection.request("GET", "/health")
        answer = connection.getresponse()
        body = answer.read()
        came[f"{answer.status} {json.loads(body)['host'] if answer.status == 200 else ''}"] += 1
    except (HTTPException, OSError) as error:
        came[repr(error)] += 1
    connection.close()
    time.sleep(0.05)
print(json.dumps(came))
"""

# A WebSocket on each host, then one row: says which hosts' clients heard of it. Not the library's client with threads: reading and
# writing one TLS connection at the same time, it loses the answer to its handshake once in a hundred times.
NOTIFICATION = """
import asyncio, json, socket, ssl, sys
from http.client import HTTPSConnection
from websockets.asyncio.client import connect

address, domain, ca, body, count = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca)

def post():
    made = HTTPSConnection(domain, context=trust)
    made.sock = trust.wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname=domain)
    made.request("POST", "/api/v1/items", json.dumps({"body": body}), {"Content-Type": "application/json"})
    assert made.getresponse().status == 201

async def main():
    clients = {}
    for _ in range(20):
        made = await connect(f"wss://{domain}/realtime", host=address, port=443, ssl=trust, server_hostname=domain)
        clients.setdefault(json.loads(await made.recv())["host"], made)
        if len(clients) == int(count):
            break
    await asyncio.to_thread(post)
    print(json.dumps({host: json.loads(await made.recv())["record"] for host, made in clients.items()}))

asyncio.run(asyncio.wait_for(main(), 60))
"""

# The driver that the stand-in brings along; the password comes on standard input.
SESSION = """
import json, ssl, sys
sys.path.insert(0, "/opt/fluxbase/server/blue/fluxbase-server")
from pg8000.native import Connection

address, user, database, ca = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca) if ca else False  # None would try TLS first
session = Connection(user, host=address, database=database, password=sys.stdin.read(), ssl_context=trust, timeout=10)
print(session.run("SELECT 1")[0][0])
"""


@dataclasses.dataclass
class Fleet:
    """The hosts, the inventory's words about them, and how users reach them."""

    edge: Host
    apps: list[Host]
    database: Host
    client: Host
    ansible: Ansible
    variables: dict[str, Any]
    secrets: dict[str, str]

    @property
    def hosts(self) -> list[Host]:
        return [self.edge, *self.apps, self.database]

    @property
    def names(self) -> set[str]:
        return {app.name for app in self.apps}

    def run(self, playbook: str = "site", **options: Any) -> Run:
        return self.ansible.playbook(*self._of_a_run(playbook, options), **options)

    def start(self, playbook: str, **options: Any) -> Running:
        return self.ansible.start(*self._of_a_run(playbook, options), **options)

    def _of_a_run(self, playbook: str, options: dict[str, Any]) -> tuple[Path, list[Host]]:
        options["groups"] = {"edge": [self.edge], "app": options.pop("apps", self.apps), "postgres": [self.database]}
        options["variables"] = {**self.variables, **options.pop("changes", {})}
        return REPOSITORY / "playbooks" / f"{playbook}.yml", self.hosts

    def curl(self, path: str, *options: str) -> Completed:
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--cacert", CA_ON_CLIENT]
        command += ["--resolve", f"{DOMAIN}:443:{self.edge.address}"]
        return self.client.root([*command, *options, f"https://{DOMAIN}{path}"])

    def who_answers(self, times: int = 8) -> set[str]:
        """The hosts that answer; every answer has to be a good one."""
        return {json.loads(self.curl("/health").stdout)["host"] for _request in range(times)}

    def versions(self, times: int = 8) -> dict[str, str]:
        """The version that answers, by host."""
        answers = [json.loads(self.curl("/health").stdout) for _request in range(times)]
        return {answer["host"]: answer["version"] for answer in answers}

    def wait_until_all_serve(self) -> None:
        deadline = time.monotonic() + 60
        while (who := self.who_answers()) != self.names:
            assert time.monotonic() < deadline, f"only {who} answer"

    @contextmanager
    def traffic(self) -> Iterator[dict[str, int]]:
        """Users' requests while something happens; afterwards the answers that came, by status and host."""
        came: dict[str, int] = {}
        end = f"/root/end-{secrets.token_hex(4)}"
        self.client.put("/root/fleet-traffic.py", TRAFFIC)
        command = ["python3", "/root/fleet-traffic.py", self.edge.address, DOMAIN, CA_ON_CLIENT, end]
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.client.root, command, timeout=600)
            try:
                yield came
            finally:
                self.client.root(["touch", end])
            came.update(json.loads(asked.result().stdout))


@pytest.fixture(scope="module")
def bare(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Hosts on which nothing has been done yet."""
    with ThreadPoolExecutor(4) as pool:
        wanted = {"edge1": "debian-13", "app1": "debian-13", "app2": "debian-12", "db1": "debian-13"}
        made = list(pool.map(lambda entry: new_host(entry[0], os=entry[1]), wanted.items()))
    folder = tmp_path_factory.mktemp("fleet")
    entry = fluxbase(hosts="app")
    entry["settings"] |= SHARED_SETTINGS
    variables = {"fleet_local_ca_dir": str(folder / "ca"), "fleet_services": {"fluxbase": entry}}
    edge, app1, app2, database = made
    return Fleet(edge, [app1, app2], database, client, Ansible(folder), variables, entry["secrets"])


@pytest.fixture(scope="module")
def fleet(bare: Fleet) -> Fleet:
    """The fleet after its first run."""
    bare.run()
    authority = Path(bare.variables["fleet_local_ca_dir"]) / "ca.pem"
    bare.client.put(CA_ON_CLIENT, authority.read_text())
    return bare


def everything(host: Host) -> str:
    """What a host has on its disk and installed; without what systemd writes by itself as time passes."""
    unstable = "-path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd"
    find = f"find /etc /opt /var/lib \\( {unstable} \\) -prune -o"
    return host.root(
        f"{find} -printf '%p %y %m %u %g %l\\n' | sort; {find} -type f -exec sha256sum {{}} + | sort -k 2; dpkg-query -W"
    ).stdout


def open_ports(source: Host, target: Host) -> set[int]:
    """The ports of a host that another one can open, by IPv4 or IPv6."""
    addresses = " ".join(filter(None, (target.address, target.address_v6)))
    ports = "22 80 443 5432 6432 8081 8082 9091 9092"
    return set(json.loads(source.root(["python3", "-", addresses, ports], stdin=PORTS).stdout))


def listening(host: Host) -> set[str]:
    """Addresses with ports."""
    return set(host.root("ss -Htln | awk '{print $4}'").stdout.split())


# Convergence


def test_check_mode_foretells_and_touches_nothing(bare: Fleet) -> None:
    before = [everything(host) for host in bare.hosts]
    run = bare.run(check=True, diff=True)
    assert {outcome.host for outcome in run.changed} == {host.name for host in bare.hosts}
    assert [everything(host) for host in bare.hosts] == before


def test_one_run_makes_the_fleet_and_a_second_changes_nothing(fleet: Fleet) -> None:
    run = fleet.run()
    assert [(outcome.host, outcome.task) for outcome in run.changed] == []


# What users meet


def test_every_application_host_serves(fleet: Fleet) -> None:
    assert fleet.who_answers() == fleet.names
    for app in fleet.apps:
        assert {f"{app.address}:8081", "127.0.0.1:6432"} <= listening(app), "closed to the world, open to the edge"


def test_what_is_written_through_one_host_is_heard_on_the_other(fleet: Fleet) -> None:
    fleet.client.put("/root/fleet-notification.py", NOTIFICATION)
    body = secrets.token_hex(8)
    script = ["python3", "/root/fleet-notification.py", fleet.edge.address, DOMAIN, CA_ON_CLIENT, body, "2"]
    heard = json.loads(fleet.client.root(script, timeout=120).stdout)
    assert {host: record["body"] for host, record in heard.items()} == dict.fromkeys(fleet.names, body)


def served_without_a_failure(came: dict[str, int], there: Host) -> None:
    """By the host that was there all the time. Whether they met the other one, too, is chance: each worker of the edge knows on its own who is down."""
    good = {f"200 {there.name}"}
    assert good <= set(came)
    assert {answer.split()[0] for answer in came} == {"200"}


def test_a_stopped_service_is_passed_over_and_used_again(fleet: Fleet) -> None:
    first, second = fleet.apps
    with fleet.traffic() as came:
        first.root(["systemctl", "stop", UNIT])
        assert fleet.who_answers() == {second.name}
        # Nothing was sent to the one that refused: what is not idempotent goes to the other as well.
        for _attempt in range(4):
            item = json.dumps({"body": secrets.token_hex(8)})
            fleet.curl("/api/v1/items", "--header", "Content-Type: application/json", "--data", item)
        first.root(["systemctl", "start", UNIT])
        fleet.wait_until_all_serve()
    served_without_a_failure(came, second)


def test_a_host_without_power_is_passed_over_and_used_again(fleet: Fleet) -> None:
    first, second = fleet.apps
    with fleet.traffic() as came:
        second.kill()
        assert fleet.who_answers() == {first.name}
        second.start()
        fleet.wait_until_all_serve()
    served_without_a_failure(came, first)


def test_users_do_not_notice_a_changed_setting(fleet: Fleet) -> None:
    fluxbase = fleet.variables["fleet_services"]["fluxbase"]
    changed = {**fluxbase, "settings": {**fluxbase["settings"], "FLUXBASE_REALTIME_MAX_CONNECTIONS": "900"}}
    with fleet.traffic() as came:
        run = fleet.run(changes={"fleet_services": {"fluxbase": changed}}, options=["--limit", "app"])
    assert {outcome.host for outcome in run.changed} == fleet.names
    fleet.variables["fleet_services"]["fluxbase"] = changed
    assert set(came) == {f"200 {name}" for name in fleet.names}


def former(fleet: Fleet, **rollout: Any) -> dict[str, Any]:
    """The inventory with the other version, and less patience."""
    rollout = {"strategy": "rolling", "soak": 1, "drain": 5, "interval": 1, **rollout}
    entry = {**fleet.variables["fleet_services"]["fluxbase"], **version(fleet.ansible.folder, OLD), "rollout": rollout}
    return {"fleet_services": {"fluxbase": entry}}


def test_users_do_not_notice_a_rolling_upgrade(fleet: Fleet) -> None:
    """One host after the other, while the other one serves; rehearsed before with a copy of the database on its own host.

    Two controllers before it were gone in the middle of that: when the copy was being made, and when the release was tried on it.
    Users with a cookie meet the new version once and for all, though both serve for a while.
    """
    changes = former(fleet, sticky="cookie")
    authority = Path(fleet.variables["fleet_local_ca_dir"], "ca.pem").read_text()
    with fleet.traffic() as came, visited(fleet.client, fleet.edge.address, authority, domain=DOMAIN) as visits:
        for seconds in (0.7, 5):
            running = fleet.start("upgrade", changes=changes)
            once_in(running, "rehearse")
            time.sleep(seconds)
            running.kill()
        run = fleet.run("upgrade", changes=changes)
    begun = run.of("Remember what was begun").result["ansible_facts"]["rollout_begun"]
    assert [(step["phase"], step["hosts"]) for step in begun if step["phase"] in ("start", "finish")] == [
        (phase, [app.name]) for app in fleet.apps for phase in ("start", "finish")
    ]
    said = run.of("Say how it went").result["msg"]
    assert sum("healthy after" in line for line in said) == 2
    for host in fleet.hosts:
        nothing_is_left_of_the_rehearsal(host)
    assert fleet.versions() == dict.fromkeys(fleet.names, OLD)
    assert set(came) == {f"200 {name}" for name in fleet.names}
    assert visits.turns() == [["blue", "green"]] * len(visits.met)
    # Some went with the first host, others with the second one.
    assert len({own.index("green") // 12 for own in visits.met}) > 1


def cut_off_between_two_hosts(fleet: Fleet, options: list[str]) -> None:
    """The controller of a rollback is gone when the first host has gone back and the second one has not."""
    first, second = fleet.apps
    note = "/etc/selfhost/services/fluxbase-server.json"
    before = second.read(note)
    second.root("systemd-run --quiet --unit=holds flock /var/lib/selfhost/transactions/.lock sleep 600")
    running = fleet.start("rollback", changes=former(fleet), options=options)
    once_in(running, "adopt")
    until = time.monotonic() + 60
    while json.loads(first.read(note))["slot"] == json.loads(before)["slot"]:
        assert time.monotonic() < until
        time.sleep(0.2)
    running.kill()
    # What the controller had begun there waits, and would go on.
    second.root("pkill --signal KILL --exact python3; systemctl stop holds")
    assert second.read(note) == before


def test_a_rollback_that_is_cut_off_between_two_hosts_is_taken_back_or_finished_on_both(fleet: Fleet) -> None:
    service = fleet.variables["fleet_services"]["fluxbase"]
    options = ["-e", "service=fluxbase", "-e", "no_way_back=fluxbase"]
    with fleet.traffic() as came:
        cut_off_between_two_hosts(fleet, options)
        fleet.run("upgrade", changes=former(fleet))
        assert fleet.versions() == dict.fromkeys(fleet.names, OLD)
        cut_off_between_two_hosts(fleet, options)
        fleet.run("rollback", changes=former(fleet), options=options)
    assert fleet.versions() == dict.fromkeys(fleet.names, service["version"])
    assert set(came) == {f"200 {name}" for name in fleet.names}
    assert fleet.run().changed == []


def test_restarted_host_by_host_one_serves_while_the_other_one_is_away(fleet: Fleet) -> None:
    service = fleet.variables["fleet_services"]["fluxbase"]
    with fleet.traffic() as came:
        run = fleet.run("upgrade", changes=former(fleet, strategy="restart", rehearsal="off"))
        assert fleet.versions() == dict.fromkeys(fleet.names, OLD)
        fleet.run("rollback", changes=former(fleet), options=["-e", "service=fluxbase", "-e", "no_way_back=fluxbase"])
    begun = run.of("Remember what was begun").result["ansible_facts"]["rollout_begun"]
    first, second = (app.name for app in fleet.apps)
    order = [(step["phase"], *step["hosts"]) for step in begun if step["phase"] in ("stop", "start", "gate")]
    assert order == [(phase, host) for host in (first, second) for phase in ("stop", "start", "gate")]
    assert fleet.versions() == dict.fromkeys(fleet.names, service["version"])
    assert set(came) == {f"200 {name}" for name in fleet.names}


def test_a_release_that_would_leave_no_way_back_is_refused(fleet: Fleet) -> None:
    """The rehearsal is on the first host of the service, and its copy on that of the database."""
    variant = "poisonous-migration"
    service = fleet.variables["fleet_services"]["fluxbase"]
    wanted = {
        **service,
        **version(fleet.ansible.folder, VARIANTS[variant], variant),
        "rollout": {"strategy": "rolling"},
    }
    before = schema(fleet.database)
    run = fleet.run("upgrade", changes={"fleet_services": {"fluxbase": wanted}}, expect_failure=True)
    said = "\n".join(outcome.result["msg"] for outcome in run.failed)
    assert f"{service['version']} would not start any more on the database that it leaves" in said
    assert "is not unique" in said and f"It failed in: rehearse {fleet.apps[0].name}" in said
    assert schema(fleet.database) == before
    assert fleet.versions() == dict.fromkeys(fleet.names, service["version"])
    for host in fleet.hosts:
        nothing_is_left_of_the_rehearsal(host)


# What is closed


def test_each_host_is_open_to_those_who_need_it_and_to_nobody_else(fleet: Fleet) -> None:
    first, second = fleet.apps
    assert f"{fleet.database.address}:5432" in listening(fleet.database), (
        "what is not there cannot show that it is closed"
    )
    pairs = [
        *((fleet.client, host) for host in fleet.hosts),
        *((fleet.edge, host) for host in (first, fleet.database)),
        *((first, host) for host in (second, fleet.database)),
    ]
    with ThreadPoolExecutor(len(pairs)) as pool:
        opened = pool.map(lambda pair: open_ports(*pair), pairs)
        found = {(source.name, target.name): ports for (source, target), ports in zip(pairs, opened, strict=True)}
    assert found == {
        (fleet.client.name, fleet.edge.name): {22, 80, 443},
        **{(fleet.client.name, host.name): {22} for host in (first, second, fleet.database)},
        (fleet.edge.name, first.name): {22, 8081},
        (fleet.edge.name, fleet.database.name): {22},
        (first.name, second.name): {22},
        (first.name, fleet.database.name): {22, 5432},
    }


def test_poolers_trust_the_fleets_authority_alone_and_all_sessions_are_encrypted(fleet: Fleet) -> None:
    authority = (Path(fleet.variables["fleet_local_ca_dir"]) / "ca.pem").read_text()
    for app in fleet.apps:
        pooler = app.read("/etc/pgbouncer/pgbouncer.ini")
        assert "server_tls_sslmode = verify-full" in pooler
        assert "server_tls_ca_file = /etc/selfhost/tls/pooler/ca.pem" in pooler
        assert app.read("/etc/selfhost/tls/pooler/ca.pem") == authority
    query = "SELECT client_addr, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = 'fluxbase'"
    rows = fleet.database.root(["runuser", "-u", "postgres", "--", "psql", "-AtXc", query]).stdout.split()
    assert set(rows) == {f"{app.address}|t" for app in fleet.apps}


@pytest.mark.parametrize(
    ("user", "database", "encrypted", "words"),
    [
        ("fluxbase", "fluxbase", True, ""),
        ("fluxbase", "fluxbase", False, "no pg_hba.conf entry"),
        ("fluxbase", "postgres", True, "no pg_hba.conf entry"),
        ("postgres", "fluxbase", True, "no pg_hba.conf entry"),
    ],
    ids=["as the pooler", "in plain text", "another database", "another user"],
)
def test_postgresql_takes_the_poolers_sessions_and_no_others(
    fleet: Fleet, user: str, database: str, encrypted: bool, words: str
) -> None:
    app = fleet.apps[0]
    app.put("/root/fleet-session.py", SESSION)
    authority = "/etc/selfhost/tls/pooler/ca.pem" if encrypted else ""
    command = ["python3", "/root/fleet-session.py", fleet.database.address, user, database, authority]
    done = app.root(command, stdin=fleet.secrets["FLUXBASE_DATABASE_PASSWORD"], check=False)
    assert (done.returncode == 0) == (words == ""), done.stderr
    assert words in done.stderr


def test_no_secret_is_on_the_edge(fleet: Fleet) -> None:
    search = "grep -rlaF -f - /etc /var /opt /srv /tmp /run /home /root 2>/dev/null || true"
    patterns = "\n".join(fleet.secrets.values())
    # grep fails for each file that goes while it reads: that the search worked is seen by a secret put there for it.
    planted = "/root/planted"
    fleet.edge.put(planted, patterns)
    try:
        assert fleet.edge.root(search, stdin=patterns).stdout.split() == [planted]
    finally:
        fleet.edge.root(["rm", planted])


# Operation


def test_status_shows_every_host(fleet: Fleet) -> None:
    table = fleet.run("status").of("Print the table").result["msg"]
    lines = [line for line in table.splitlines()[1:] if not line.startswith("certificate ")]
    rows = {(line.split()[0], line.split()[1]): line for line in lines}
    assert set(rows) == {
        *(("fluxbase/server", app.name) for app in fleet.apps),
        *(("pgbouncer", app.name) for app in fleet.apps),
        ("nginx", fleet.edge.name),
        ("postgresql@17-main", fleet.database.name),
    }
    assert all("healthy" in rows["fluxbase/server", app.name] for app in fleet.apps)
    certificates = {tuple(line.split()[1:3]) for line in table.splitlines() if line.startswith("certificate ")}
    assert certificates == {
        (DOMAIN, fleet.edge.name),
        ("postgres", fleet.database.name),
        *(("pooler", app.name) for app in fleet.apps),
    }


def test_a_host_that_is_taken_out_gets_no_more_requests(fleet: Fleet) -> None:
    first, second = fleet.apps
    with fleet.traffic() as came:
        fleet.run(apps=[first])
    assert set(came) == {f"200 {name}" for name in fleet.names}, "both served, and nobody was turned away"
    assert second.address not in fleet.edge.read("/etc/nginx/conf.d/fluxbase.conf")
    assert second.address not in fleet.database.read("/etc/postgresql/17/main/pg_hba.conf")
    assert fleet.who_answers() == {first.name}
    assert open_ports(fleet.edge, second) == {22}
