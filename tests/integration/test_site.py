"""The whole site on a bare Debian 13 host: what users meet, what is closed, what survives, and what a mistake does not harm."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Run
from fleetbed.service import DOMAIN, made_secrets
from fleetbed.site import CA_ON_CLIENT, SITE, UNIT, Site, main_pid, psql

CLOSED = {5432, 6432, 8081, 8082, 9091, 9092}
OPEN = {22, 80, 443}

# Not the library's client with threads: reading and writing one TLS connection at the same time, it loses the answer to its
# handshake once in a while.
WEBSOCKETS = """
import asyncio, json, socket, ssl, sys
from http.client import HTTPSConnection
from websockets.asyncio.client import connect

address, domain, ca, body = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca)

async def opened():
    made = await connect(f"wss://{domain}/realtime", host=address, port=443, ssl=trust, server_hostname=domain)
    assert json.loads(await made.recv())["type"] == "connected"
    return made

def post():
    made = HTTPSConnection(domain, context=trust)
    made.sock = trust.wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname=domain)
    made.request("POST", "/api/v1/items", json.dumps({"body": body}), {"Content-Type": "application/json"})
    assert made.getresponse().status == 201

async def main():
    first, second = await opened(), await opened()
    await first.send("hello")
    print(json.dumps(json.loads(await first.recv())))
    await asyncio.to_thread(post)
    for each in (first, second):
        print(json.dumps(json.loads(await each.recv())))

asyncio.run(asyncio.wait_for(main(), 45))
"""

PORTS = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

address, *ports = sys.argv[1:]

def is_open(port):
    try:
        socket.create_connection((address, int(port)), timeout=3).close()
    except OSError:
        return False
    return True

with ThreadPoolExecutor(len(ports)) as pool:
    print(json.dumps([int(port) for port, found in zip(ports, pool.map(is_open, ports)) if found]))
"""


@pytest.fixture(scope="module")
def bare(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A host on which nothing has been done yet."""
    return Site.plan(new_host("site"), client, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def converged(bare: Site) -> tuple[Site, Run]:
    """The site after its first run, and that run, as verbose as can be."""
    return bare, bare.converge(options=["-vvv"], diff=True)


@pytest.fixture
def site(converged: tuple[Site, Run]) -> Site:
    return converged[0]


def everything(host: Host) -> str:
    """What a host has on its disk and installed; without what systemd writes by itself as time passes."""
    unstable = "-path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd"
    find = f"find /etc /opt /var/lib \\( {unstable} \\) -prune -o"
    return host.root(
        f"{find} -printf '%p %y %m %u %g %l\\n' | sort; {find} -type f -exec sha256sum {{}} + | sort -k 2; dpkg-query -W"
    ).stdout


def addresses(host: Host) -> list[str]:
    return [address for address in (host.address, host.address_v6) if address]


def patterns(site: Site) -> str:
    """The secrets for `grep -f -`: on a command line they would be among the arguments of a process."""
    return "\n".join(site.secrets.values())


def define_second(site: Site) -> None:
    """A definition of one's own beside the inventory: the same program under another name, with ports and paths of its own."""
    text = (REPOSITORY / "services" / "fluxbase.yml").read_text()
    for old, new in (
        ("name: fluxbase\n", "name: second\n"),
        ("user: fluxbase\n", "user: second\n"),
        ("/var/lib/fluxbase", "/var/lib/second"),
        ("/etc/fluxbase/", "/etc/second/"),
        # A password's name begins with the service's; the program knows it by its own.
        ("FLUXBASE_DATABASE_PASSWORD:", "SECOND_DATABASE_PASSWORD:"),
        ("{secret.FLUXBASE_DATABASE_PASSWORD}", "{secret.SECOND_DATABASE_PASSWORD}"),
        ("password of the database role\n", "password of the database role\n    environment: false\n"),
        (
            "      FLUXBASE_ENVIRONMENT: production\n",
            "      FLUXBASE_ENVIRONMENT: production\n"
            '      FLUXBASE_DATABASE_PASSWORD: "{secret.SECOND_DATABASE_PASSWORD}"\n',
        ),
        ("{blue: 8081, green: 8082}", "{blue: 8181, green: 8182}"),
        ("{blue: 9091, green: 9092}", "{blue: 9191, green: 9192}"),
    ):
        assert old in text
        text = text.replace(old, new)
    folder = site.ansible.folder / "services"
    folder.mkdir(exist_ok=True)
    (folder / "second.yml").write_text(text)


# Convergence


def test_check_mode_foretells_and_touches_nothing(bare: Site) -> None:
    before = everything(bare.host)
    run = bare.run(check=True, diff=True)
    assert run.changed
    assert everything(bare.host) == before


def test_one_run_makes_the_site_and_a_second_changes_nothing(site: Site) -> None:
    run = site.run()
    assert [outcome.task for outcome in run.changed] == []
    sets = [outcome.result["timings_ms"] for outcome in run.outcomes if "timings_ms" in outcome.result]
    # Rendered on the controller and known to be there: no set of configuration needed a call of its own.
    assert len(sets) > 8
    assert [timings for timings in sets if set(timings) != {"render"}] == []


def test_what_somebody_changed_by_hand_is_put_right(site: Site) -> None:
    before = site.hashes()
    site.host.root("echo '# by hand' >> /etc/nginx/nginx.conf; systemctl disable --now selfhost-bans-watch.timer")
    run = site.run()
    assert len(run.changed) == 2  # bans and edge
    assert site.hashes() == before
    site.host.root("systemctl is-active selfhost-bans-watch.timer")


# What users meet


def test_users_reach_the_service_over_https(site: Site) -> None:
    health = json.loads(site.curl("/health", "--fail").stdout)
    assert (health["status"], health["version"]) == ("ok", "2026.3.6")
    assert health["services"]["database"] is True


def test_a_row_is_written_and_read(site: Site) -> None:
    body = site.add_item()
    rows = json.loads(site.curl("/api/v1/items", "--fail").stdout)
    assert rows[0]["body"] == body
    assert psql(site.host, f"SELECT count(*) FROM app.items WHERE body = '{body}'") == ["1"]


def test_the_service_reaches_the_database_through_the_pool_alone(site: Site) -> None:
    site.add_item()
    sessions = psql(site.host, "SELECT client_port FROM pg_stat_activity WHERE usename = 'fluxbase'")
    assert sessions
    pooler, service = main_pid(site.host, "pgbouncer.service"), main_pid(site.host, UNIT)
    to_postgres = site.host.root(["ss", "-Htnp", "state", "established", "dport = :5432"]).stdout.splitlines()
    assert all(f"pid={pooler}," in line for line in to_postgres)
    assert {port for port in sessions if not any(f":{port} " in line for line in to_postgres)} == set()
    to_pooler = site.host.root(["ss", "-Htnp", "state", "established", "dport = :6432"]).stdout
    assert f"pid={service}," in to_pooler
    assert 'FLUXBASE_DATABASE_PORT="6432"' in site.host.read("/etc/fluxbase/server.blue.env")


def test_websockets_pass_notifications_on_to_every_client(site: Site) -> None:
    site.client.put("/root/site-websockets.py", WEBSOCKETS)
    body = secrets.token_hex(8)
    script = ["python3", "/root/site-websockets.py", site.host.address, DOMAIN, CA_ON_CLIENT, body]
    ack, first, second = map(json.loads, site.client.root(script, timeout=60).stdout.splitlines())
    assert ack == {"type": "ack", "echo": "hello"}
    assert first["record"]["body"] == body
    assert second == first


def test_users_do_not_share_the_limits_of_one_address(site: Site) -> None:
    """Behind nginx all of them have its address for the program: five sign-ups and ten sign-ins a minute would be for all."""
    header = ("--header", "Content-Type: application/json")
    answers = []
    for number in range(12):
        data = json.dumps({"email": f"user-{number}@example.com", "password": "correct-horse"})
        for path in ("signup", "signin"):
            said = site.curl(f"/api/v1/auth/{path}", *header, "--data", data, "--write-out", "\n%{http_code}")
            answers.append(int(said.stdout.splitlines()[-1]))
    assert answers == [201, 200] * 12


# Headers, names, TLS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strict-transport-security", "max-age=63072000"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("x-request-id", ""),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/metrics"], ids=["answer", "refusal"])
def test_every_answer_has_the_header(site: Site, path: str, name: str, value: str) -> None:
    lines = site.curl(path, "--output", "/dev/null", "--dump-header", "-").stdout.splitlines()
    values = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(f"{name}:")]
    assert len(values) == 1
    assert values[0].startswith(value)
    assert values[0]


def test_http_is_redirected(site: Site) -> None:
    answer = site.curl(
        "/some?query=1", "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}", scheme="http"
    )
    assert answer.stdout == f"301 https://{DOMAIN}/some?query=1"


@pytest.mark.parametrize(("scheme", "codes"), [("http", {52, 56}), ("https", {35})], ids=["http", "https"])
def test_an_unknown_name_gets_no_answer(site: Site, scheme: str, codes: set[int]) -> None:
    answer = site.curl("/", "--insecure", name="unknown.test", scheme=scheme, check=False)
    # 52: an empty reply, 56: the connection reset, 35: no handshake.
    assert answer.returncode in codes, answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize(("version", "works"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)])
def test_only_current_versions_of_tls_work(site: Site, version: str, works: bool) -> None:
    command = ["openssl", "s_client", "-connect", f"{site.host.address}:443", "-servername", DOMAIN, f"-{version}"]
    command += ["-CAfile", CA_ON_CLIENT, "-verify_return_error", "-verify_hostname", DOMAIN]
    # Without a security level the client itself would refuse the old ones.
    done = site.client.root([*command, "-cipher", "ALL:@SECLEVEL=0"], stdin="", check=False)
    assert (done.returncode == 0) is works, done.stdout + done.stderr
    assert works or "alert protocol version" in done.stdout + done.stderr


# What is closed


def test_only_three_ports_are_open(site: Site) -> None:
    listening = site.host.root("ss -Htln | awk '{print $4}'").stdout
    ports = {int(line.rpartition(":")[2]) for line in listening.split()}
    assert {5432, 6432, 8081, 9091} | OPEN <= ports, "what is not there cannot show that it is closed"
    site.client.put("/root/site-ports.py", PORTS)
    for address in addresses(site.host):
        script = ["python3", "/root/site-ports.py", address, *map(str, sorted(ports | CLOSED))]
        assert set(json.loads(site.client.root(script).stdout)) == OPEN, address


@pytest.mark.parametrize(
    "path", ["/metrics", "/api/v1/admin/setup", "/api/v1/admin/setup/status", "//metrics", "/%6detrics"]
)
def test_closed_paths_answer_404(site: Site, path: str) -> None:
    answer = site.curl(path, "--path-as-is", "--write-out", "%{http_code}")
    assert answer.stdout.endswith("404")
    assert "fluxbase_" not in answer.stdout


def exposure(host: Host, unit: str) -> float:
    words = host.root(["systemd-analyze", "security", "--no-pager", unit]).stdout
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", words)
    assert found, words
    return float(found[1])


def test_the_unit_is_hardened(site: Site) -> None:
    assert exposure(site.host, UNIT) <= 1.0


def test_the_unit_is_hardened_with_a_companion_that_writes_its_code(site: Site, tmp_path: Path) -> None:
    deno = tmp_path / "deno"
    deno.write_text("#!/bin/sh\necho deno 2.9.8\n")
    checksum = f"sha256:{hashlib.sha256(deno.read_bytes()).hexdigest()}"
    fluxbase = site.variables["fleet_services"]["fluxbase"]
    with_deno = {
        **fluxbase,
        "settings": {},
        "companions": {"deno": {"version": "2.9.8", "source": str(deno), "checksum": checksum}},
    }
    site.run(changes={"fleet_services": {"fluxbase": with_deno}})
    shown = site.host.root(["systemctl", "show", "--property=MemoryDenyWriteExecute", "--value", UNIT]).stdout
    assert shown.strip() == "no"
    environment = site.host.root(f"tr '\\0' '\\n' < /proc/{main_pid(site.host, UNIT)}/environ").stdout
    (path,) = re.findall(r"^PATH=(.*)$", environment, re.MULTILINE)
    assert site.host.root(["env", f"PATH={path}", "deno", "--version"]).stdout == "deno 2.9.8\n"
    assert exposure(site.host, UNIT) <= 1.0
    site.run()
    assert site.status("/health") == 200


# Deaths


@pytest.mark.parametrize("unit", [UNIT, "nginx.service", "pgbouncer.service"])
def test_what_is_killed_comes_back(site: Site, unit: str) -> None:
    old = main_pid(site.host, unit)
    site.host.root(["kill", "-9", str(old)])
    deadline = time.monotonic() + 15
    while main_pid(site.host, unit) in (0, old):
        assert time.monotonic() < deadline, site.host.root(["systemctl", "status", unit], check=False).stdout
        time.sleep(0.1)
    site.answers_within(deadline - time.monotonic())
    site.add_item()


def test_what_does_not_find_a_restarted_database_starts_again(site: Site) -> None:
    """Its health would say that all is well, while nobody hears the database's notifications any more."""
    before, database = main_pid(site.host, UNIT), "postgresql@17-main.service"
    site.host.root(["systemctl", "restart", database])
    deadline = time.monotonic() + 60
    while main_pid(site.host, UNIT) in (0, before):
        assert time.monotonic() < deadline, site.host.root(["systemctl", "status", database, UNIT], check=False).stdout
        time.sleep(0.2)
    site.answers_within(60)
    site.add_item()


def test_a_reboot_brings_everything_back(site: Site) -> None:
    rules = "nft list ruleset | grep -c 'dport 443'"
    assert int(site.host.root(rules).stdout)
    body = site.add_item()
    assert site.host.restart() == "running"
    site.answers_within(30)
    assert int(site.host.root(rules).stdout)
    assert json.loads(site.curl("/api/v1/items", "--fail").stdout)[0]["body"] == body
    test_only_three_ports_are_open(site)


# Secrets


def test_no_secret_is_in_the_output_of_a_run(converged: tuple[Site, Run]) -> None:
    site, run = converged
    assert "server.blue.env" in run.output, "a run that says nothing shows nothing"
    assert [name for name, value in site.secrets.items() if value in run.output] == []


def test_no_token_of_an_address_is_logged_by_nginx(site: Site) -> None:
    """With the service away too: nginx would write the whole request line of what failed."""
    token = secrets.token_hex(16)
    assert site.status(f"/api/v1/items?token={token}") == 200
    site.host.root(["systemctl", "stop", UNIT])
    try:
        assert site.status(f"/api/v1/items?token={token}&away=1") == 502
    finally:
        site.host.root(["systemctl", "start", UNIT])
    site.answers_within(60)
    logged = [json.loads(line) for line in site.host.read("/var/log/nginx/access.log").splitlines()]
    (failed,) = [entry for entry in logged if (entry["path"], entry["status"]) == ("/api/v1/items", 502)]
    assert len(failed["request_id"]) == 32
    assert site.host.root(["grep", "-r", token, "/var/log/nginx"], check=False).stdout == ""


def test_no_secret_is_in_the_journal(site: Site) -> None:
    journal = site.host.root(["journalctl", "--no-pager", "--all", "--output", "export"]).stdout
    assert "fluxbase-server" in journal
    assert [name for name, value in site.secrets.items() if value in journal] == []


def test_no_secret_is_among_the_arguments_of_a_process(site: Site) -> None:
    arguments = site.host.root("ps axww -o args; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'").stdout
    assert "fluxbase-server" in arguments
    assert [name for name, value in site.secrets.items() if value in arguments] == []


def test_only_the_services_own_processes_have_secrets_in_their_environment(site: Site) -> None:
    # Processes end while grep reads: what counts is what it found.
    found = site.host.root(
        "grep -laF -f - /proc/[0-9]*/environ 2>/dev/null | while read -r file; do stat -c %U ${file%/environ}; done",
        stdin=patterns(site),
        check=False,
    ).stdout.split()
    assert set(found) == {"fluxbase"}


def test_no_file_with_a_secret_is_for_others(site: Site) -> None:
    found = site.host.root(
        "grep -rlaF -f - /etc /var/lib /var/log /opt /tmp /run /home /root 2>/dev/null "
        "| while read -r file; do stat -c '%a %U %n' \"$file\"; done",
        stdin=patterns(site),
        check=False,
    ).stdout.splitlines()
    assert "600 root /etc/fluxbase/server.blue.env" in found, "the search finds what there is"
    assert [line for line in found if int(line.split()[0], 8) & 0o007] == []
    assert [line for line in found if not line.endswith(" /etc/fluxbase/server.blue.env")] == []


# Mistakes


def test_a_plan_that_cannot_be_is_refused_with_all_reasons_before_any_host_is_touched(site: Site) -> None:
    define_second(site)
    definitions = site.ansible.folder / "services"
    (definitions / "third.yml").write_text(
        (definitions / "second.yml").read_text().replace("name: second", "name: third")
    )
    fluxbase = site.variables["fleet_services"]["fluxbase"]
    wrong = {
        "fluxbase": {
            **fluxbase,
            "colour": "green",
            "domain": "https://Fluxbase.test/",
            "ports": {"server": {"http": {"blue": 6432}}},
            "database": {"connections": 500},
            "secrets": {"FLUXBASE_AUTH_JWT_SECRET": "change-me", "FLUXBASE_ENCRYPTION_KEY": secrets.token_hex(4)},
        },
        "second": {
            **{key: value for key, value in fluxbase.items() if key != "domain"},
            "hosts": "nowhere",
            "secrets": {"FLUXBASE_AUTH_JWT_SECRET": "0123456789abcdef" * 4},
        },
        "third": {**fluxbase, "version": "2099.1", "domain": "third.test"},
        "nosuch": {"version": "1.0", "hosts": "fluxbase"},
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = Host(name="nobody", os="debian-12", address="127.0.0.1", address_v6="")
        run = site.ansible.playbook(
            SITE,
            [nobody],
            groups={name: [nobody] for name in ("edge", "postgres", "fluxbase")},
            variables={"fleet_services": wrong, "ansible_port": listener.getsockname()[1]},
            expect_failure=True,
        )
        listener.settimeout(0.5)
        with pytest.raises(TimeoutError):  # nobody came
            listener.accept()
    assert [outcome.status for outcome in run.outcomes] == ["failed"]
    said = run.outcomes[0].result["msg"]
    named = {
        "fleet_services.fluxbase.colour",
        "fleet_services.fluxbase.domain",
        "fleet_services.fluxbase.secrets.FLUXBASE_AUTH_JWT_SECRET",
        "fleet_services.fluxbase.secrets.FLUXBASE_ENCRYPTION_KEY",
        "fleet_services.fluxbase.secrets.FLUXBASE_DATABASE_PASSWORD",
        "fleet_services.fluxbase.ports.server.http.blue",
        "fleet_postgres.max_connections",
        "fleet_services.fluxbase.version",  # needs an extension that Debian 12 has no package for
        "fleet_services.second.domain",
        "fleet_services.second.hosts",
        "fleet_services.second.secrets.FLUXBASE_AUTH_JWT_SECRET",
        "fleet_services.third.version",
        "fleet_services.nosuch",
    }
    assert {variable for variable in named if variable not in said} == set(), said
    assert wrong["fluxbase"]["secrets"]["FLUXBASE_ENCRYPTION_KEY"] not in run.output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"edge_hsts": 'max-age=1"; nonsense on; #'}, 'unknown directive "nonsense"'),
        ({"pooler_ignore_startup_parameters": ["extra_float_digits\nnonsense = 1"]}, "unknown parameter"),
        (
            {"fleet_postgres": {"settings": {"nonsense": 1}}},
            'unrecognized configuration parameter "nonsense"',
        ),
    ],
    ids=["nginx", "pgbouncer", "postgres"],
)
def test_an_invalid_file_is_refused_and_the_old_one_goes_on(site: Site, changes: dict[str, Any], words: str) -> None:
    refused(site, words, changes)


def test_an_invalid_unit_is_refused_and_the_old_one_goes_on(site: Site) -> None:
    definition = yaml.safe_load((REPOSITORY / "services" / "fluxbase.yml").read_text())
    nonsense = {"SystemCallFilter": {"value": "@nonsense", "reason": "a mistake in a definition"}}
    definition["components"]["server"]["hardening"] = nonsense
    own = site.ansible.folder / "services" / "fluxbase.yml"
    own.parent.mkdir(exist_ok=True)
    own.write_text(yaml.safe_dump(definition))
    try:
        refused(site, "@nonsense")
    finally:
        own.unlink()


def refused(site: Site, words: str, changes: dict[str, Any] | None = None) -> None:
    """The run ends with the validator's words on the host, and nothing of it is on the disk or live."""
    before, process = site.hashes(), main_pid(site.host, UNIT)
    run = site.run(changes=changes or {}, expect_failure=True)
    (failed,) = run.failed
    assert failed.task != "Compute the plan", failed.result["msg"]
    assert words in failed.result["msg"]
    assert site.hashes() == before
    assert main_pid(site.host, UNIT) == process
    assert site.status("/health") == 200


# A service that goes


def test_while_somebody_else_works_on_the_fleet_nothing_is_touched(site: Site) -> None:
    holder = {"token": "1", "operator": "ada@bridge", "what": "upgrade.yml", "since": "2026-01-01T12:00:00.000Z"}
    before = site.hashes()
    site.host.put("/var/lib/selfhost/fleet.lock", json.dumps(holder), mode="0600")
    settings = {**site.variables["fleet_services"]["fluxbase"]["settings"], "FLUXBASE_LOGGING_CONSOLE_LEVEL": "debug"}
    run = site.run(changes=site.changed(settings=settings), expect_failure=True)
    message = run.failed[0].result["msg"]
    assert "locked by ada@bridge, since 2026-01-01T12:00:00.000Z, for: upgrade.yml" in message
    assert site.hashes() == before
    # Dead, and on another controller: it is taken over by name, and given back.
    assert site.run(options=["-e", "lock_takeover=ada@bridge"]).changed == []
    assert site.host.root("ls /var/lib/selfhost/fleet.lock", check=False).returncode != 0


def test_a_service_taken_out_of_the_inventory_is_gone(site: Site) -> None:
    define_second(site)
    fluxbase = site.variables["fleet_services"]["fluxbase"]
    own = {**made_secrets(), "SECOND_DATABASE_PASSWORD": secrets.token_hex(24)}
    del own["FLUXBASE_DATABASE_PASSWORD"]
    second = {**fluxbase, "domain": "second.test", "hosts": "fluxbase", "secrets": own}
    site.run(changes={"fleet_services": {"fluxbase": fluxbase, "second": second}})
    traces = (
        "systemctl is-active 'second-*' | grep -w active; ls -d /etc/systemd/system/*second* /etc/second/*; "
        "grep -rlE 'second[.]test|second_server|^second =|\"second\"' /etc/nginx /etc/pgbouncer"
    )
    assert site.status("/health", name="second.test") == 200
    assert site.host.root(f"set +e; {traces}", check=False).stdout
    pooler = main_pid(site.host, "pgbouncer")
    site.run()
    assert site.host.root(f"set +e; {traces}", check=False).stdout == ""
    # PgBouncer dies of a reload that takes a database away from its clients, once in a few times.
    journal = site.host.root("journalctl -o cat -u pgbouncer -u 'second-*'").stdout
    assert journal.index("Stopped second-server@") < journal.index("dropping database 'second'"), journal
    assert main_pid(site.host, "pgbouncer") == pooler
    assert site.status("/health", name="second.test") == 0
    assert site.status("/health") == 200
