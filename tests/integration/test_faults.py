"""Faults at run time, one by one on a host that serves: what the operator is told, what users keep, and that the next run finishes.

The table of them is docs/faults.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fleetbed.faults import ANSWERS, CUTS_OFF, HOLDS_LOCK, TAKES_CONNECTIONS, fill, small, unit
from fleetbed.host import Host
from fleetbed.releases import FOREIGN, HERE, NEW, archive, elf, link, script
from fleetbed.site import UNIT, Site, main_pid, psql

SLOT = "fluxbase-server@blue"
COMPONENT = "/opt/fluxbase/server"


@pytest.fixture(scope="module")
def site(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that serves."""
    made = Site.plan(new_host("faults", has_packages=True), client, tmp_path_factory.mktemp("faults"))
    made.converge()
    return made


@contextmanager
def serving(site: Site) -> Iterator[None]:
    """The same process serves users before and after."""
    process = main_pid(site.host, UNIT)
    assert site.status("/health") == 200
    yield
    assert site.status("/health") == 200
    assert main_pid(site.host, UNIT) == process


def contents(host: Host, folder: str) -> str:
    return host.root(f"find {folder} -printf '%p %y %m %u %g %l\\n' | sort").stdout


# A release that cannot be had


def install(site: Site, folder: Path, content: bytes, **options: Any) -> dict[str, Any]:
    """A further release beside the one that runs."""
    expect_failure = options.pop("expect_failure", False)
    source = folder / "fluxbase-server"
    source.write_bytes(content)
    arguments = {
        "root": COMPONENT,
        "version": NEW,
        "source": str(source),
        "checksum": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "executable": "fluxbase-server",
        "version_command": ["{executable}", "-version"],
        "version_pattern": "Fluxbase {version}",
        "links": {"green": NEW},
        "keep": 9,
        **options,
    }
    return site.ansible.module("selfhost.fleet.release", arguments, site.host, expect_failure=expect_failure)


def refused_release(site: Site, folder: Path, content: bytes, *words: str, **options: Any) -> None:
    before = contents(site.host, COMPONENT)
    with serving(site):
        failed = install(site, folder, content, expect_failure=True, **options)
        for each in words:
            assert each in failed["msg"]
        assert contents(site.host, COMPONENT) == before
    try:
        assert install(site, folder, script())["installed"]
    finally:
        site.host.root(f"rm -rf {COMPONENT}/green {COMPONENT}/releases/{NEW}")


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        pytest.param(
            script(),
            {"checksum": f"sha256:{'0' * 64}"},
            ["fluxbase-server on the controller has the checksum sha256:", "Nothing was installed"],
            id="wrong checksum",
        ),
        pytest.param(
            script(),
            {"source": "https://127.0.0.1:9/fluxbase"},
            [
                "https://127.0.0.1:9/fluxbase cannot be fetched by this host: Connection refused",
                "may this host reach it",
            ],
            id="unreachable address",
        ),
        pytest.param(
            archive(tarfile.TarInfo("fluxbase-server"), tarfile.TarInfo("../../../../etc/cron.d/evil")),
            {},
            ["contains '../../../../etc/cron.d/evil', a path that leaves the release's folder", "repack it"],
            id="archive with a path outside",
        ),
        pytest.param(
            archive(tarfile.TarInfo("fluxbase-server"), link("etc", "/etc")),
            {},
            ["contains 'etc', a link to '/etc' outside of the release's folder", "repack it"],
            id="archive with a link outside",
        ),
        pytest.param(
            elf(FOREIGN[0]),
            {},
            [f"it is built for the architecture {FOREIGN[1]}", f"Take the build for {platform.machine()}"],
            id="another architecture",
        ),
        pytest.param(
            elf(HERE, "/lib/ld-musl-none.so.1"),
            {},
            [
                "it was built for another C library (musl): its loader /lib/ld-musl-none.so.1 is not on this host",
                "glibc",
            ],
            id="another C library",
        ),
    ],
)
def test_a_release_that_cannot_be_used(
    site: Site, tmp_path: Path, content: bytes, options: dict[str, Any], words: list[str]
) -> None:
    refused_release(site, tmp_path, content, *words, **options)


@contextmanager
def server_of_downloads(site: Site, *validity: str) -> Iterator[str]:
    """An address with TLS on the client, whose certificate the host trusts."""
    client, host, trusted = site.client, site.host, "/usr/local/share/ca-certificates/faults.crt"
    subject = ["-subj", "/CN=faults", "-addext", f"subjectAltName=IP:{client.address}"]
    made = ["openssl", "req", "-x509", "-noenc", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *validity]
    client.root([*made, *subject, "-keyout", "/root/faults.key", "-out", "/root/faults.pem"])
    client.put("/root/faults.py", CUTS_OFF)
    host.put(trusted, client.read("/root/faults.pem"))
    host.root("update-ca-certificates 2>&1")
    try:
        with unit(client, "faults", "python3", "/root/faults.py", "/root/faults.pem", "/root/faults.key", "8443"):
            yield f"https://{client.address}:8443/fluxbase-server"
    finally:
        host.root(f"rm {trusted}; update-ca-certificates --fresh 2>&1")


def test_a_download_that_is_cut_off(site: Site, tmp_path: Path) -> None:
    with server_of_downloads(site) as address:
        words = f"{address} was cut off after 1000 of 1048576 bytes, 3 times"
        refused_release(site, tmp_path, script(), words, "Run again", source=address)


# Full disks


def test_a_disk_that_is_full_while_a_release_is_unpacked(site: Site, tmp_path: Path) -> None:
    with small(site.host, "/opt", room="100"):
        words = f"The disk is full: Installing {NEW} failed below {COMPONENT} (0 MiB free)", "Free some space there"
        refused_release(site, tmp_path, script() + b"# " + b"x" * 1_000_000, *words)


def test_a_disk_that_is_full_while_a_release_is_sent(site: Site, tmp_path: Path) -> None:
    with small(site.host, "/home/admin", room="100"):
        large = script() + b"# " + b"x" * 1_000_000
        refused_release(site, tmp_path, large, "could not be sent to /home/admin/.ansible/tmp", "Are 1 MiB free there?")


def setting(site: Site, value: str) -> dict[str, Any]:
    """A changed setting of the service: one file, one restart."""
    settings = site.variables["fleet_services"]["fluxbase"]["settings"]
    return site.changed(settings={**settings, "FLUXBASE_CORS_ALLOWED_ORIGINS": value})


def setting_that_runs(site: Site) -> str:
    environment = site.host.root(f"tr '\\0' '\\n' < /proc/{main_pid(site.host, UNIT)}/environ").stdout
    return dict(line.partition("=")[::2] for line in environment.splitlines()).get("FLUXBASE_CORS_ALLOWED_ORIGINS", "")


@pytest.mark.parametrize("folder", ["/etc/fluxbase", "/var/lib/selfhost"], ids=["configuration", "journal"])
def test_a_disk_that_is_full_while_configuration_is_written(site: Site, folder: str) -> None:
    changes, origin = setting(site, f"https://full{folder}"), f"https://full{folder}"
    with small(site.host, folder, room="1"):
        before = site.hashes()
        filler = fill(site.host, folder)
        try:
            with serving(site):
                run = site.run(playbook=site.only("service"), changes=changes, expect_failure=True)
                message = run.failed[0].result["msg"]
                assert "No space left on device (0 MiB free in " in message and f"{folder}/" in message
                assert "The disk is full: free some space there, and run again" in message
        finally:
            site.host.root(["rm", filler])
        assert site.hashes() == before
    site.run(playbook=site.only("service"), changes=changes)
    assert setting_that_runs(site) == origin
    assert site.status("/health") == 200


def cluster(site: Site, database: str, **options: Any) -> dict[str, Any]:
    arguments = {"databases": [{"name": database, "state": options.pop("state", "present")}]}
    return site.ansible.module("selfhost.fleet.postgres_cluster", arguments, site.host, **options)


@contextmanager
def small_disk_under_postgresql(site: Site) -> Iterator[str]:
    """The folder of the databases, with little room left."""
    folder = f"{psql(site.host, 'SHOW data_directory')[0]}/base"
    units = "postgresql@17-main pgbouncer fluxbase-server@blue"
    site.host.root(f"systemctl stop {units}")
    try:
        with small(site.host, folder, room="500"):
            try:
                site.host.root(f"systemctl start {units}")
                site.answers_within(60)
                yield folder
            finally:
                site.host.root(f"systemctl stop {units}")
    finally:
        site.host.root(f"systemctl start {units}")


def test_a_disk_that_is_full_under_postgresql(site: Site) -> None:
    site.add_item()
    with small_disk_under_postgresql(site) as folder:
        # The first session in a database after a start writes a file that later ones read; one with no room for it is refused.
        psql(site.host, "SELECT 1", "postgres")
        filler = fill(site.host, folder)
        try:
            with serving(site):
                failed = cluster(site, "faults", expect_failure=True)
                assert failed["msg"].startswith("database faults: ")
                assert "No space left on device" in failed["msg"]
                assert (
                    "The disk under its data directory is full: free some space there, and run again" in failed["msg"]
                )
                assert site.status("/api/v1/items") == 200
        finally:
            site.host.root(["rm", filler])
    site.answers_within(60)
    assert cluster(site, "faults")["changed"]
    assert cluster(site, "faults", state="absent")["changed"]


# PostgreSQL refuses


def test_postgresql_without_a_free_connection(site: Site) -> None:
    site.host.put("/run/takes.py", TAKES_CONNECTIONS)
    with serving(site):
        with unit(site.host, "taker", "python3", "/run/takes.py", user="postgres"):
            site.host.root("timeout 60 sh -c 'until journalctl --unit taker | grep -q full; do sleep 0.2; done'")
            failed = cluster(site, "faults", expect_failure=True)
            assert "too many clients already" in failed["msg"]
            assert "raise fleet_postgres.max_connections" in failed["msg"]
        assert cluster(site, "faults")["changed"]
    assert cluster(site, "faults", state="absent")["changed"]


def test_postgresql_that_does_not_start(site: Site) -> None:
    """Somebody's mistake by hand, noticed at the next start. The edge goes on, the service says that its database is away."""
    mistake = "/etc/postgresql/17/main/conf.d/99-by-hand.conf"
    service = main_pid(site.host, UNIT)
    site.host.put(mistake, "shared_buffers = lots\n")
    try:
        site.host.root("systemctl restart postgresql@17-main", check=False)
        run = site.run(playbook=site.only("postgres"), expect_failure=True)
        message = run.failed[0].result["msg"]
        assert "99-by-hand.conf" in message and "contains errors" in message
        assert site.status("/health") == 503
    finally:
        site.host.root(["rm", mistake])
    site.run(playbook=site.only("postgres"))
    # With its database the service starts again too: it would not find back.
    site.host.root(
        f"timeout 60 sh -c 'until test $(systemctl show --property=MainPID --value {UNIT}) != {service}; do sleep 0.2; done'"
    )
    site.answers_within(60)


# Packages


SOURCES = "/etc/apt/sources.list"
INSTALLED = "selfhost.fleet.baseline : Install the packages of all roles in one transaction"


@contextmanager
def mirror_away(host: Host) -> Iterator[None]:
    before = host.read(SOURCES)
    host.put(SOURCES, "deb http://127.0.0.1:9/debian trixie main\n")
    try:
        yield
    finally:
        host.put(SOURCES, before)


def packages(site: Site, *names: str, **options: Any) -> Any:
    changes = {"baseline_packages": ["systemd-timesyncd", *names], "baseline_packages_lock_timeout": 3}
    return site.run(playbook=site.only("baseline"), changes={**changes, **options.pop("changes", {})}, **options)


def refused_packages(site: Site, package: str, *words: str) -> None:
    with serving(site):
        message = packages(site, package, expect_failure=True).failed[0].result["msg"]
        for each in words:
            assert each in message


def test_apt_is_not_needed_where_nothing_is_missing(site: Site) -> None:
    lock = "/var/lib/dpkg/lock-frontend"
    with mirror_away(site.host), unit(site.host, "locker", "python3", "-c", HOLDS_LOCK, lock):
        assert packages(site).changed == []


@pytest.mark.parametrize(
    ("lock", "problem", "package"),
    [
        ("/var/lib/apt/lists/lock", "The package lists could not be read", "sl"),
        ("/var/lib/dpkg/lock-frontend", "cowsay could not be installed", "cowsay"),
    ],
    ids=["lists", "dpkg"],
)
def test_apt_that_another_program_holds(site: Site, lock: str, problem: str, package: str) -> None:
    with unit(site.host, "locker", "python3", "-c", HOLDS_LOCK, lock):
        process = main_pid(site.host, "locker.service")
        held = f"for 3 s another program has held {lock}: process {process} (python3)"
        refused_packages(site, package, problem, "nothing was changed", held, "then run again")
    assert packages(site, package).of(INSTALLED).changed


def test_apt_without_its_mirror(site: Site) -> None:
    with mirror_away(site.host):
        words = "E: Failed to fetch http://127.0.0.1:9/debian", "Does this host reach the mirrors", "Run again"
        refused_packages(site, "hello", "The package lists could not be read", *words)
    assert packages(site, "hello").of(INSTALLED).changed


def test_an_installation_that_was_cut_off_is_finished_by_the_next_run(site: Site) -> None:
    """The controller and dpkg are killed together while a package is set up: apt then refuses whatever it is asked for."""
    helper, package = "/usr/bin/deb-systemd-helper", "tinyproxy"
    site.host.root(f"mv {helper} {helper}.kept; printf '#!/bin/sh\\nexec sleep 600\\n' >{helper}; chmod 755 {helper}")
    try:
        changes = {"baseline_packages": ["systemd-timesyncd", package]}
        running = site.start(playbook=site.only("baseline"), changes=changes)
        site.host.root("timeout 300 sh -c 'until pgrep --full \"^sleep 600\"; do sleep 0.1; done'")
        running.kill()
        site.host.root("pkill --signal KILL apt-get; pkill --signal KILL dpkg; pkill --signal KILL --full '^sleep 600'")
    finally:
        site.host.root(f"mv {helper}.kept {helper}")
    assert "dpkg was interrupted" in site.host.root("apt-get install -qy hello", check=False).stderr
    assert site.status("/health") == 200
    assert packages(site, package).of(INSTALLED).result["installed"] == [package]
    assert site.host.root("dpkg --audit").stdout == ""
    site.host.root(f"DEBIAN_FRONTEND=noninteractive apt-get purge -qy {package}", timeout=120)


# Clocks


def test_a_clock_that_is_wrong(site: Site) -> None:
    """A container has the machine's clock: modules on the host see another one through libfaketime."""
    packages(site, "faketime")
    behind = "/usr/local/bin/python-an-hour-ago"
    site.host.put(behind, '#!/bin/sh\nexec faketime -f -1h /usr/bin/python3 "$@"\n', mode="0755")
    before = site.hashes()
    try:
        with serving(site):
            seen = {"ansible_python_interpreter": behind}
            message = packages(site, changes=seen, expect_failure=True).failed[0].result["msg"]
            assert "s behind the controller's" in message and "sudo date --set=" in message
            assert site.hashes() == before
            packages(site, changes={**seen, "baseline_clock_tolerance": 4000})
    finally:
        site.host.root(["rm", behind])
    packages(site)


def test_a_certificate_that_is_not_valid_yet(site: Site, tmp_path: Path) -> None:
    """What a clock that is behind makes of downloads."""
    with server_of_downloads(site, "-not_before", "20990101000000Z", "-not_after", "20990201000000Z") as address:
        words = f"{address} cannot be trusted: certificate is not yet valid", "This host's clock says 20"
        refused_release(site, tmp_path, script(), *words, source=address)


# A port that another program holds


@pytest.mark.parametrize("port", ["http", "metrics"])
def test_a_port_that_another_program_holds(site: Site, port: str) -> None:
    """Fluxbase only logs that, and stays; and the other program answers as if all were well."""
    site.host.put("/run/answers.py", ANSWERS)
    moved = site.changed(ports={"server": {port: {"blue": 8085, "green": 8086}}})
    before = site.hashes()
    with serving(site), unit(site.host, "intruder", "python3", "/run/answers.py", "8085"):
        run = site.run(playbook=site.only("service"), changes=moved, expect_failure=True)
        message = run.failed[0].result["msg"]
        holder = "is held by /system.slice/intruder.service. Nothing was changed."
        assert f"127.0.0.1:8085, where {UNIT} is to listen, {holder}" in message
        assert site.hashes() == before
    site.run(playbook=site.only("service", "edge"), changes=moved)
    assert site.status("/health") == 200
    site.run(playbook=site.only("service", "edge"))
    assert site.status("/health") == 200


# Cut off in the middle


def in_the_middle(host: Host, name: str) -> None:
    """Wait until a transaction is open. Without a process for each look: the shortest one is over in a tenth of a second."""
    journal = f"/var/lib/selfhost/transactions/{name}/journal.json"
    look = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.005)"
    host.root(["timeout", "300", "python3", "-c", look, journal])


def cut_ssh(host: Host) -> None:
    host.root("pkill --signal KILL --full '^sshd.*: admin'")


@pytest.mark.parametrize("how", ["connection", "reboot", "power"])
def test_cut_off_in_the_middle_of_a_transaction(site: Site, how: str) -> None:
    origin = f"https://{how}.test"
    running = site.start(playbook=site.only("service"), changes=setting(site, origin))
    in_the_middle(site.host, SLOT)
    if how == "connection":
        cut_ssh(site.host)
    elif how == "reboot":
        site.host.restart()
    else:
        site.host.kill()
        site.host.start()
    cut = running.end(timeout=300)
    assert cut.returncode != 0, cut.output
    site.answers_within(120)
    if how == "connection":
        message = cut.failed[0].result["msg"]
        assert f"The connection was lost while the set {SLOT} was put in place" in message
        assert "Run again" in message
    site.run(playbook=site.only("service"), changes=setting(site, origin))
    assert setting_that_runs(site) == origin
    assert site.status("/health") == 200
    assert site.host.root("find /var/lib/selfhost/transactions -mindepth 1 -type d").stdout == ""


MOMENTS = ("baseline", "postgres", "pooler", SLOT, "edge")


def test_a_controller_that_is_killed_again_and_again(site: Site) -> None:
    """Each run comes a little further; what it was killed in is finished or undone on the host, and the last one finishes."""
    for number, moment in enumerate(MOMENTS):
        changes = {
            **setting(site, f"https://killed-{number}.test"),
            "baseline_journal_max_use": f"{400 + number}M",
            "fleet_postgres": {"settings": {"work_mem": f"{5 + number}MB"}},
            "pooler_query_wait_timeout": 61 + number,
            "edge_hsts": f"max-age={63072001 + number}",
        }
        running = site.start(changes=changes)
        in_the_middle(site.host, moment)
        running.kill()
        site.answers_within(120)
    # Whether anything is left for it depends on how far the host came by itself.
    site.run(changes=changes)
    site.answers_within(60)
    assert setting_that_runs(site) == f"https://killed-{len(MOMENTS) - 1}.test"
    headers = site.curl("/health", "--output", "/dev/null", "--dump-header", "-").stdout
    assert f"max-age={63072001 + len(MOMENTS) - 1}" in headers
    assert json.loads(site.curl("/health", "--fail").stdout)["status"] == "ok"
    assert psql(site.host, "SHOW work_mem") == ["9MB"]
