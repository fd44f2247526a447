"""The state of the fleet as a page by itself: what real hosts say of themselves, one of which is away, and a service that would like to be markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Ansible, Run

STATUS = REPOSITORY / "playbooks" / "status.yml"
HOSTILE = "<script>alert(1)</script>"
SERVER = f"""
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b"{HOSTILE}")

HTTPServer(("127.0.0.1", 8081), Answer).serve_forever()
"""
UNIT = "[Service]\nExecStart=/usr/bin/python3 /opt/hostile.py\n"


class Cells(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def hostile(host: Host) -> Host:
    """A host with one service, which runs and does not answer well, and a certificate."""
    note = {
        "service": "hostile",
        "component": "server",
        "unit": "hostile-server",
        "version": HOSTILE,
        "slot": "blue",
        "probe": {"kind": "http", "url": "http://127.0.0.1:8081/", "status": [200]},
    }
    host.put("/etc/selfhost/services/hostile-server.json", json.dumps(note))
    host.put("/opt/hostile.py", SERVER)
    host.put("/etc/systemd/system/hostile-server@.service", UNIT)
    host.root("systemctl start hostile-server@blue; until ss -Hltn | grep -q :8081; do sleep 0.1; done", timeout=30)
    tls = "/etc/selfhost/tls/hostile.test"
    host.root(
        f"mkdir -p {tls}; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 "
        f"-subj /CN=hostile.test -keyout {tls}/privkey.pem -out {tls}/fullchain.pem"
    )
    return host


def ask(ansible: Ansible, hosts: list[Host], *words: str, check: bool = False) -> Run:
    return ansible.playbook(STATUS, hosts, options=list(words), check=check)


def test_the_page_is_what_the_table_is(hostile: Host, ansible: Ansible, tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    run = ask(ansible, [hostile], "--extra-vars", json.dumps({"html": str(path)}), check=True)
    assert [outcome.task for outcome in run.changed] == ["Write the page"], "of the hosts nothing"
    text = path.read_text()
    page = Cells(text)
    assert "script" not in page.tags
    assert "<script" not in text
    rows = {row[0]: row[1:] for row in page.rows[1:]}
    assert set(rows) == {"hostile/server", "certificate hostile.test"}
    assert rows["hostile/server"][:3] == [hostile.name, HOSTILE, "blue"]
    assert "503" in rows["hostile/server"][3]
    assert rows["certificate hostile.test"][3] == "9 days left"
    table = run.of("Print the table").result["msg"]
    for cell in (cell for name, row in rows.items() for cell in (name, *row)):
        assert cell in table
    assert "UTC</time>" in text


def test_a_host_that_is_away_is_on_the_page(hostile: Host, ansible: Ansible, tmp_path: Path) -> None:
    away = Host(name="away", os="debian-13", address="192.0.2.1", address_v6="")
    path = tmp_path / "status.html"
    options = ["--extra-vars", json.dumps({"html": str(path), "ansible_timeout": 5})]
    run = ansible.playbook(STATUS, [hostile, away], options=options, expect_failure=True)
    assert [(outcome.host, outcome.status) for outcome in run.failed] == [("away", "unreachable")]
    assert ["-", "away", "-", "-", "did not answer", "-"] in Cells(path.read_text()).rows


def test_without_a_path_no_page_is_made(hostile: Host, ansible: Ansible) -> None:
    assert ask(ansible, [hostile]).of("Write the page").status == "skipped"
