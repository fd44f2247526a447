"""The hardened units of nginx, PgBouncer and PostgreSQL on both releases: how exposed they are, and all that they have to go on doing."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from fleetbed.engine import Completed
from fleetbed.host import Host
from fleetbed.runner import Ansible, Run
from fleetbed.service import DOMAIN, VERSIONS, fluxbase

SERVICE = "fluxbase-server@blue.service"
POSTGRES = {"debian-13": "postgresql@17-main.service", "debian-12": "postgresql@15-main.service"}
# What the units come to on both releases. As Debian ships them: 9.6, 9.2, 9.6.
EXPOSURE = {"nginx.service": 2.4, "pgbouncer.service": 1.1, "postgresql": 1.3}
CERTIFICATE = f"/etc/selfhost/tls/{DOMAIN}"
NGINX_PID = "/run/nginx.pid"
# What makes PostgreSQL compile each expression of a query, however small.
COMPILE = "SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0;"
SUM = "SELECT sum(g * 2 + 1) FROM generate_series(1, 1000) g WHERE g % 7 <> 3"
# The roles alone, in the order of site.yml: hosts need no firewall of their own here.
PLAYS = [
    {
        "name": "Plan",
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"name": "Compute the plan", "selfhost.fleet.plan": {}, "run_once": True}],
    },
    {
        "name": "Carry out the plan",
        "hosts": "all",
        "gather_facts": False,
        "vars": {"fleet": "{{ ansible_facts['fleet_plan']['hosts'][inventory_hostname] }}"},
        "tasks": [
            {"name": role, "ansible.builtin.include_role": {"name": f"selfhost.fleet.{role}"}}
            for role in ("baseline", "certificate", "postgres", "pooler", "service", "edge")
        ],
    },
]


@dataclasses.dataclass(frozen=True)
class Site:
    host: Host
    ansible: Ansible
    variables: dict[str, Any]

    @property
    def postgres(self) -> str:
        return POSTGRES[self.host.os]

    @property
    def units(self) -> dict[str, str]:
        return {"nginx": "nginx.service", "pgbouncer": "pgbouncer.service", "postgres": self.postgres}

    def run(self, *, expect_failure: bool = False, **changes: Any) -> Run:
        groups = {name: [self.host] for name in ("edge", "postgres", "fluxbase")}
        variables = {**self.variables, **changes}
        return self.ansible.playbook(
            PLAYS, [self.host], groups=groups, variables=variables, expect_failure=expect_failure
        )

    @contextmanager
    def connection(self, *, verified: bool = True) -> Iterator[HTTPSConnection]:
        trust = ssl.create_default_context(cafile=str(Path(self.variables["fleet_local_ca_dir"]) / "ca.pem"))
        if not verified:
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        made = HTTPSConnection(DOMAIN, context=trust, timeout=30)
        plain = create_connection((self.host.address, 443), timeout=30)
        made.sock = trust.wrap_socket(plain, server_hostname=DOMAIN)
        try:
            yield made
        finally:
            made.close()

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        with self.connection() as made:
            made.request(method, path, body, {"Content-Type": "application/json"})
            answer = made.getresponse()
            return answer.status, answer.read().decode()

    def served_certificate(self) -> str:
        with self.connection(verified=False) as made:
            assert isinstance(made.sock, ssl.SSLSocket)
            return ssl.DER_cert_to_PEM_cert(made.sock.getpeercert(binary_form=True) or b"").strip()

    def answers(self) -> None:
        """A row goes through nginx, the service and PgBouncer to PostgreSQL, and comes back."""
        body = secrets.token_hex(8)

        def written_and_read() -> bool:
            try:
                written = self.request("POST", "/api/v1/items", json.dumps({"body": body}))[0] == 201
                return written and body in self.request("GET", "/api/v1/items")[1]
            except OSError:
                return False

        eventually(written_and_read, "a row is written and read")

    def sql(self, *statements: str, database: str = "postgres") -> list[str]:
        """As the superuser over the socket, one session."""
        commands = [word for statement in statements for word in ("-c", statement)]
        options = ["-AtXq", "-v", "ON_ERROR_STOP=1", "-d", database]
        return self.host.root(["runuser", "-u", "postgres", "--", "psql", *options, *commands]).stdout.splitlines()

    def console(self, command: str) -> str:
        """PgBouncer's, to which the user that it runs as needs no password: it has to see who that is."""
        words = ["psql", "-AtX", "-h", "/run/postgresql", "-p", "6432", "-U", "pgbouncer", "-c", command, "pgbouncer"]
        return self.host.root(["runuser", "-u", "postgres", "--", *words]).stdout

    def property(self, unit: str, name: str) -> str:
        return self.host.root(["systemctl", "show", f"--property={name}", "--value", unit]).stdout.strip()

    def process_status(self, pid: str) -> dict[str, str]:
        lines = self.host.read(f"/proc/{pid}/status").splitlines()
        return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}

    def inside(self, pid: str, script: str) -> Completed:
        """A script among what a process sees of the files, with the rights that root has outside of the unit."""
        return self.host.root(["nsenter", f"--target={pid}", "--mount", "sh", "-c", script], check=False)


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module", params=["debian-13", "debian-12"])
def site(
    request: pytest.FixtureRequest, new_host: Callable[..., Host], tmp_path_factory: pytest.TempPathFactory
) -> Site:
    entry = fluxbase(VERSIONS[request.param])
    folder = tmp_path_factory.mktemp("units")
    variables = {"fleet_local_ca_dir": str(folder / "ca"), "fleet_services": {"fluxbase": entry}}
    converged = Site(
        new_host("units", os=request.param, has_packages=request.param == "debian-13"), Ansible(folder), variables
    )
    converged.run()
    return converged


# How exposed they are


@pytest.mark.parametrize("name", ["nginx", "pgbouncer", "postgres"])
def test_the_unit_is_hardened(site: Site, name: str) -> None:
    unit = site.units[name]
    words = site.host.root(["systemd-analyze", "security", "--no-pager", unit]).stdout
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", words)
    assert found, words
    assert float(found[1]) <= EXPOSURE.get(unit, EXPOSURE["postgresql"]), words


def test_what_needs_no_capability_has_none(site: Site) -> None:
    for unit in ("pgbouncer.service", site.postgres):
        status = site.process_status(site.property(unit, "MainPID"))
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert set(status["Uid"].split()) == {site.host.root(["id", "-u", "postgres"]).stdout.strip()}


def test_nginxs_master_has_five_capabilities_and_its_workers_none(site: Site) -> None:
    master = site.property("nginx.service", "MainPID")
    # CHOWN, DAC_OVERRIDE, SETGID, SETUID, NET_BIND_SERVICE
    assert int(site.process_status(master)["CapEff"], 16) == sum(1 << number for number in (0, 1, 6, 7, 10))
    workers = site.host.root(["pgrep", "--parent", master]).stdout.split()
    assert workers
    for worker in workers:
        status = site.process_status(worker)
        assert int(status["CapEff"], 16) == 0
        assert set(status["Uid"].split()) == {site.host.root(["id", "-u", "www-data"]).stdout.strip()}


def test_nginxs_master_cannot_change_the_system_nor_ask_systemd_to(site: Site) -> None:
    master = site.property("nginx.service", "MainPID")
    for path in ("/etc/x", "/usr/local/bin/x", "/run/systemd/system/x", f"{CERTIFICATE}/x"):
        assert "Read-only file system" in site.inside(master, f"touch {path}").stderr
    assert site.host.root("systemctl is-active nginx.service; busctl list >/dev/null").stdout == "active\n"
    assert site.inside(master, "systemctl is-active nginx.service").returncode != 0
    assert site.inside(master, "busctl list").returncode != 0


# What they have to go on doing


@pytest.mark.parametrize("name", ["nginx", "pgbouncer", "postgres"])
def test_all_answer_after_a_restart(site: Site, name: str) -> None:
    site.answers()
    service = site.property(SERVICE, "MainPID")
    site.host.root(["systemctl", "restart", site.units[name]])
    if name == "postgres":  # the service would not find back to it
        eventually(lambda: site.property(SERVICE, "MainPID") not in ("0", service), "the service has started again")
    site.answers()


def test_nginx_serves_a_new_certificate_after_a_reload(site: Site) -> None:
    before, master = site.served_certificate(), site.property("nginx.service", "MainPID")
    site.host.root(f"cp -a {CERTIFICATE} /root/kept")
    try:
        site.host.root(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN={DOMAIN} "
            f"-keyout {CERTIFICATE}/privkey.pem -out {CERTIFICATE}/fullchain.pem"
        )
        new = site.host.read(f"{CERTIFICATE}/fullchain.pem").strip()
        assert site.served_certificate() == before != new
        site.host.root(["systemctl", "reload", "nginx.service"])
        eventually(lambda: site.served_certificate() == new, "the new certificate is served")
    finally:
        site.host.root(f"cp -a /root/kept/. {CERTIFICATE}/; rm -r /root/kept; systemctl reload nginx.service")
    eventually(lambda: site.served_certificate() == before, "the former certificate is served")
    assert site.property("nginx.service", "MainPID") == master


def test_nginx_keeps_a_large_request_in_a_file(site: Site) -> None:
    size = 300_000  # more than what it keeps in memory
    status, answer = site.request("POST", "/api/v1/storage/upload", "x" * size)
    assert (status, json.loads(answer)) == (200, {"size": size})


def test_nginx_opens_its_logs_again_when_they_are_rotated(site: Site) -> None:
    log = "/var/log/nginx/access.log"
    # As the package's own logrotate file says.
    site.host.root(f"mv {log} {log}.1; install -o www-data -g adm -m 0640 /dev/null {log}; invoke-rc.d nginx rotate")

    def logged() -> bool:
        site.request("GET", "/health?rotated")
        return '"path":"/health"' in site.host.read(log)

    eventually(logged, "requests are in the new log")


def test_a_new_program_of_nginxs_takes_over_without_a_restart(site: Site) -> None:
    old = site.property("nginx.service", "MainPID")
    with site.connection() as kept:
        # As the package does after an update.
        site.host.root(["invoke-rc.d", "nginx", "upgrade"])
        kept.request("GET", "/health")
        assert kept.getresponse().status == 200
    eventually(
        lambda: site.property("nginx.service", "MainPID") == site.host.read(NGINX_PID).strip() != old,
        "systemd knows the new master",
    )
    eventually(lambda: site.host.root(["test", "!", "-e", f"/proc/{old}"], check=False).returncode == 0, "one is left")
    site.answers()


def test_pgbouncer_takes_a_new_pool_with_a_reload(site: Site) -> None:
    file, process = "/etc/pgbouncer/pgbouncer.ini", site.property("pgbouncer.service", "MainPID")
    before = site.host.read(file)
    further = before.replace("[databases]", "[databases]\nfurther = host=127.0.0.1 port=5432 dbname=fluxbase")
    try:
        site.host.root(f"cat > {file}", stdin=further)
        assert "further|" not in site.console("SHOW DATABASES")
        site.host.root(["systemctl", "reload", "pgbouncer.service"])
        eventually(lambda: "further|" in site.console("SHOW DATABASES"), "the new pool is there")
    finally:
        site.host.root(f"cat > {file}; systemctl reload pgbouncer.service", stdin=before)
    assert site.property("pgbouncer.service", "MainPID") == process
    site.answers()


def test_postgresql_takes_a_new_setting_with_a_reload(site: Site) -> None:
    process = site.property(site.postgres, "MainPID")
    site.sql("ALTER SYSTEM SET work_mem = '12345kB'")
    assert site.sql("SHOW work_mem") != ["12345kB"]
    try:
        site.host.root(["systemctl", "reload", site.postgres])
        eventually(lambda: site.sql("SHOW work_mem") == ["12345kB"], "the setting is in effect")
    finally:
        site.sql("ALTER SYSTEM RESET work_mem", "SELECT pg_reload_conf()")
    assert site.property(site.postgres, "MainPID") == process


def test_postgresql_does_all_that_a_database_does(site: Site) -> None:
    site.host.root("install -d -o postgres -m 0700 /srv/units")
    site.sql("CREATE DATABASE units")
    try:
        site.sql(
            *(f"CREATE EXTENSION {name}" for name in ("pgcrypto", "hstore", "pg_trgm")),
            "CREATE TABLE rows AS SELECT g AS id, repeat(md5(g::text), 6) AS body FROM generate_series(1, 1000000) g",
            "CREATE INDEX ON rows (id)",
            "CHECKPOINT",
            "VACUUM ANALYZE rows",
            database="units",
        )
        (size,) = site.sql("SELECT pg_total_relation_size('rows')", database="units")
        assert int(size) > 200_000_000
        # Workers share memory that is made for the query.
        parallel = (
            "SET max_parallel_workers_per_gather = 2",
            "SET parallel_setup_cost = 0",
            "SET parallel_tuple_cost = 0",
        )
        query = "SELECT count(*) FROM rows WHERE body LIKE '%a%'"
        assert "Workers Launched" in "\n".join(site.sql(*parallel, f"EXPLAIN ANALYZE {query}", database="units"))
        file = "/var/lib/postgresql/rows.copy"
        site.sql(
            f"COPY (SELECT * FROM rows LIMIT 1000) TO '{file}'",
            "CREATE TABLE copied (LIKE rows)",
            f"COPY copied FROM PROGRAM 'cat {file} && rm {file}'",
            database="units",
        )
        assert site.sql("SELECT count(*), sum(length(digest(body, 'sha256'))) FROM copied", database="units") == [
            "1000|32000"
        ]
        site.sql("CREATE TABLESPACE units LOCATION '/srv/units'")
        site.sql("ALTER TABLE copied SET TABLESPACE units", database="units")
        dump = "runuser -u postgres -- pg_dump --table=copied units | grep -c '^[0-9]'"
        assert site.host.root(dump).stdout == "1000\n"
    finally:
        site.sql("DROP DATABASE units")
        site.sql("DROP TABLESPACE IF EXISTS units")


# Just-in-time compilation


def test_a_session_that_wants_to_compile_harms_nobody(site: Site) -> None:
    """Without a provider it computes as ever; with one, and pages that cannot be both written and run, a server of 15 went down."""
    started = site.sql("SELECT pg_postmaster_start_time()")
    other = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    before = site.sql(other)
    assert site.sql("SET jit = on", COMPILE, SUM, "SELECT pg_jit_available()") == ["858857", "f"]
    assert site.sql("SELECT pg_postmaster_start_time()") == started
    assert site.sql(other) == before


def test_the_unit_follows_the_setting_jit(site: Site) -> None:
    assert site.property(site.postgres, "MemoryDenyWriteExecute") == "yes"
    site.run(fleet_postgres={"settings": {"jit": True}})
    try:
        assert site.property(site.postgres, "MemoryDenyWriteExecute") == "no"
        assert "JIT:" in site.sql(COMPILE, f"EXPLAIN ANALYZE {SUM}")
        assert site.sql(COMPILE, SUM) == ["858857"]
    finally:
        site.run()
    assert site.property(site.postgres, "MemoryDenyWriteExecute") == "yes"
    assert site.sql("SHOW jit") == ["off"]
    site.answers()


# A drop-in that is wrong


CHANGES: dict[str, dict[str, Any]] = {
    "nginx": {"edge_worker_connections": 4096},
    "pgbouncer": {"pooler_query_wait_timeout": 61},
    "postgres": {"fleet_postgres": {"settings": {"jit": True}}},
}


@contextmanager
def further_drop_in(site: Site, unit: str, text: str) -> Iterator[None]:
    path = f"/etc/systemd/system/{unit}.d/20-test.conf"
    site.host.put(path, text)
    try:
        yield
    finally:
        site.host.root(f"rm {path}; systemctl daemon-reload")


def state(site: Site, unit: str) -> tuple[str, str]:
    """The unit's process, and its files of configuration."""
    folders = "/etc/nginx /etc/pgbouncer /etc/postgresql /etc/systemd/system"
    files = site.host.root(f"find {folders} -type f -exec sha256sum {{}} + | sort -k 2").stdout
    return site.property(unit, "MainPID"), files


@pytest.mark.parametrize("name", ["nginx", "pgbouncer", "postgres"])
def test_a_line_that_systemd_would_ignore_is_refused_before_anything_is_live(site: Site, name: str) -> None:
    unit = site.units[name]
    with further_drop_in(site, unit, "[Service]\nProtectNonsense=yes\n"):
        before = state(site, unit)
        run = site.run(expect_failure=True, **CHANGES[name])
        assert "ProtectNonsense" in run.failed[0].result["msg"]
        assert state(site, unit) == before
    site.answers()


def test_a_drop_in_with_which_the_unit_does_not_start_comes_back(site: Site) -> None:
    own = f"/etc/systemd/system/{site.postgres}.d/10-selfhost-fleet.conf"
    refuses = f"[Service]\nExecStartPre=/bin/sh -c '! grep -qx MemoryDenyWriteExecute=no {own}'\n"
    with further_drop_in(site, site.postgres, refuses):
        process, files = state(site, site.postgres)
        run = site.run(expect_failure=True, **CHANGES["postgres"])
        assert site.postgres in run.failed[0].result["msg"]
        new_process, new_files = state(site, site.postgres)
        assert new_files == files
        assert new_process != process, "it was tried, and started again over the former file"
        assert site.property(site.postgres, "MemoryDenyWriteExecute") == "yes"
        site.answers()


# The host


def test_a_boot_brings_all_of_them_back(site: Site) -> None:
    assert site.host.restart() == "running"
    site.answers()
    assert [site.property(unit, "ActiveState") for unit in site.units.values()] == ["active"] * 3


def test_a_second_run_changes_nothing(site: Site) -> None:
    assert [outcome.task for outcome in site.run().changed] == []
