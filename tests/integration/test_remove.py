"""A service leaves a host that it shares with another one: its own goes, its data stay until they are named, the other one notices nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Any

import pytest
import yaml
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Run
from fleetbed.site import UNIT, Site, main_pid, psql

REMOVE = REPOSITORY / "playbooks" / "remove.yml"
NOTES = "notes.test"
NOTES_UNIT = "notes-web@blue.service"
FOLDERS = "/etc /opt /var/lib/fluxbase /var/lib/notes /var/lib/selfhost/config"

# A service of a user's own: it keeps a file in its state folder, and answers.
PROGRAM = """#!/usr/bin/python3
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

if "--version" in sys.argv:
    print("notes 1.0")
    sys.exit()

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"notes")

Path("/var/lib/notes/kept").write_text("what users wrote")
HTTPServer(("127.0.0.1", int(os.environ["NOTES_PORT"])), Answer).serve_forever()
"""
DEFINITION: dict[str, Any] = {
    "name": "notes",
    "description": "for this test",
    "components": {
        "web": {
            "release": {"executable": "notes", "version_command": ["{executable}", "--version"]},
            "ports": {"http": {"blue": 8181, "green": 8182}},
            "probe": {"kind": "http", "port": "http", "path": "/"},
            "state": [{"path": "/var/lib/notes"}],
            "settings": {"NOTES_PORT": "{port.http}"},
        }
    },
    "routes": [{"path": "/", "kind": "http"}],
    "contracts": [{"versions": ">=1"}],
}


@pytest.fixture(scope="module")
def site(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Both services on one host."""
    folder = tmp_path_factory.mktemp("remove")
    made = Site.plan(new_host("remove"), client, folder)
    (folder / "services").mkdir()
    (folder / "services" / "notes.yml").write_text(yaml.safe_dump(DEFINITION))
    program = folder / "notes"
    program.write_text(PROGRAM)
    made.variables["fleet_services"]["notes"] = {
        "version": "1.0",
        "domain": NOTES,
        "hosts": "fluxbase",
        "release": {"source": str(program), "checksum": f"sha256:{hashlib.sha256(program.read_bytes()).hexdigest()}"},
    }
    # A host that may reach only what the plan has it reach: enough for all that is done here, from the first run in check mode on.
    made.variables["fleet_firewall"] = {"egress": "closed"}
    made.run(check=True)
    made.converge()
    assert "policy drop" in made.host.root("nft list chain inet selfhost_fleet output").stdout
    assert made.run().changed == []
    assert made.status("/", name=NOTES) == made.status("/health") == 200
    return made


def remove(site: Site, service: str, *, delete_data: str = "", without: Collection[str] = (), **options: Any) -> Run:
    """`without`: services that the inventory has no longer."""
    words = ["--extra-vars", f"service={service}"]
    words += ["--extra-vars", f"delete_data={delete_data}"] if delete_data else []
    services = {name: entry for name, entry in site.variables["fleet_services"].items() if name not in without}
    return site.run(playbook=REMOVE, options=words, changes={"fleet_services": services}, **options)


def said(run: Run) -> list[str]:
    return list(run.of("Say what went, what stays and where").result["msg"])


def everything(host: Host) -> str:
    find = f"find {FOLDERS}"
    units = f"{UNIT} {NOTES_UNIT} nginx pgbouncer postgresql@17-main"
    return host.root(
        f"{find} -printf '%p %y %m %u %g %l\\n' | sort; {find} -type f -exec sha256sum {{}} + | sort -k 2; "
        f"getent passwd; systemctl show --property=Id,InvocationID {units}"
    ).stdout


def is_there(host: Host, path: str) -> bool:
    return host.root(["test", "-e", path], check=False).returncode == 0


def users(host: Host) -> set[str]:
    return set(host.root("getent passwd | cut -d : -f 1").stdout.split())


@pytest.mark.parametrize(
    ("service", "delete_data", "words"),
    [
        ("notes", "note", "is 'note', and the service is 'notes'"),
        ("postgresql", "postgresql", "no definition of a service"),
    ],
)
def test_a_slip_of_the_pen_touches_no_host(site: Site, service: str, delete_data: str, words: str) -> None:
    before = everything(site.host)
    run = remove(site, service, delete_data=delete_data, expect_failure=True)
    assert words in run.of("Plan the fleet without it").result["msg"]
    assert "No host was touched" in run.output
    assert everything(site.host) == before


def test_check_mode_tells_what_would_go_and_touches_nothing(site: Site) -> None:
    before = everything(site.host)
    run = remove(site, "notes", delete_data="notes", check=True, diff=True)
    assert everything(site.host) == before
    lines = said(run)
    for what in ("/opt/notes/web", "/etc/selfhost/tls/notes.test", "/var/lib/notes", "user notes"):
        assert f"{site.host.name}: would be removed: {what}" in lines
    assert "/etc/nginx/sites-enabled/notes.conf" in run.output
    assert site.status("/", name=NOTES) == 200


def test_it_goes_and_its_data_stay_and_the_other_one_notices_nothing(site: Site) -> None:
    host, pid = site.host, main_pid(site.host, UNIT)
    site.add_item()
    run = remove(site, "notes")
    for path in (
        "/etc/nginx/sites-enabled/notes.conf",
        "/etc/systemd/system/notes-web@blue.service",
        "/etc/notes",
        "/etc/selfhost/services/notes-web.json",
        "/etc/selfhost/tls/notes.test",
        "/opt/notes",
    ):
        assert not is_there(host, path), path
    assert host.root(["systemctl", "is-active", NOTES_UNIT], check=False).stdout.strip() == "inactive"
    assert host.read("/var/lib/notes/kept") == "what users wrote"
    assert "notes" in users(host), "its number is not given to another one while it owns that"
    lines = said(run)
    assert f"{host.name}: kept: /var/lib/notes (data). To delete it: rm -r /var/lib/notes" in lines
    assert "take fleet_services.notes out" in lines[-1]
    assert main_pid(host, UNIT) == pid
    assert site.status("/health") == 200
    assert remove(site, "notes").changed == []
    # What site.yml would do without it is done.
    services = {"fluxbase": site.variables["fleet_services"]["fluxbase"]}
    assert [outcome.task for outcome in site.run(changes={"fleet_services": services}).changed] == []


def test_data_go_by_name_though_the_inventory_no_longer_has_it(site: Site) -> None:
    host, pid = site.host, main_pid(site.host, UNIT)
    run = remove(site, "notes", delete_data="notes", without={"notes"})
    assert not is_there(host, "/var/lib/notes")
    assert "notes" not in users(host)
    assert not [line for line in said(run) if "inventory" in line]
    assert main_pid(host, UNIT) == pid
    again = remove(site, "notes", delete_data="notes", without={"notes"})
    assert again.changed == []
    assert said(again) == ["Nothing of notes is left on any host."]


def test_the_last_service_goes_and_its_database_stays(site: Site) -> None:
    host = site.host
    before = psql(host, "SELECT count(*) FROM app.items")
    run = remove(site, "fluxbase", without={"notes"})
    lines = said(run)
    assert f"{host.name}: kept: database fluxbase (data). To delete it: -e delete_data=fluxbase" in lines
    assert f"{host.name}: kept: /var/lib/fluxbase (data). To delete it: rm -r /var/lib/fluxbase" in lines
    assert psql(host, "SELECT count(*) FROM app.items") == before
    assert site.status("/health") == 0, "nobody answers for its name"
    for path in ("/etc/fluxbase", "/opt/fluxbase", "/etc/selfhost/tls/fluxbase.test"):
        assert not is_there(host, path), path
    assert host.root(["systemctl", "is-active", "nginx", "postgresql@17-main"]).stdout.split() == ["active", "active"]
    assert host.root(["systemctl", "is-active", "pgbouncer"], check=False).stdout.strip() != "active"
    assert "fluxbase" not in host.root("grep -v '^#' /etc/postgresql/17/main/pg_hba.conf").stdout
    assert remove(site, "fluxbase", without={"notes"}).changed == []


def test_the_database_goes_by_name(site: Site) -> None:
    host = site.host
    remove(site, "fluxbase", delete_data="fluxbase", without={"notes", "fluxbase"})
    assert psql(host, "SELECT datname FROM pg_database WHERE datname = 'fluxbase'", "postgres") == []
    assert psql(host, "SELECT rolname FROM pg_roles WHERE rolname ~ '^fluxbase'", "postgres") == []
    assert not is_there(host, "/var/lib/fluxbase")
    assert "fluxbase" not in users(host)
