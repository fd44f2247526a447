"""A release beside another one behind a real nginx: what its log says, and what the gate makes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

MODULE = "selfhost.fleet.canary_gate"
DOMAIN = "notes.test"
TLS = f"/etc/selfhost/tls/{DOMAIN}"
LOG = "/var/log/nginx/access.log"
OLD, NEW = "127.0.0.1:8900", "127.0.0.1:8901"
# On a port; of so many requests one is an error (0: none); each takes so many seconds.
SERVICE = """
import itertools, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, wrong, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
numbers = itertools.count(1)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(seconds)
        self.send_response(500 if wrong and next(numbers) % wrong == 0 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass

ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def slice_of(host: Host) -> dict[str, Any]:
    route = {"match": "prefix", "kind": "http", "upstream": "notes", "timeout": 60, "limit": None, "body_limit": None}
    route |= {"login": None}
    servers = [{"address": "127.0.0.1", "port": 8900, "weight": 3}, {"address": "127.0.0.1", "port": 8901, "weight": 1}]
    site = {
        "name": "notes",
        "domains": [DOMAIN],
        "certificate": TLS,
        "upstreams": [{"name": "notes", "keepalive": 4, "servers": servers}],
        "body_limit": "8k",
        "connections_per_client": 100,
        "limits": [],
        "routes": [{**route, "path": "/stream", "kind": "streaming", "timeout": 3600}, {**route, "path": "/"}],
    }
    return {"fleet": {"os": host.os, "edge": {"sites": [site]}, "certificates": []}}


@pytest.fixture(scope="module", params=["debian-13", "debian-12"])
def edge(request: pytest.FixtureRequest, new_host: Any, tmp_path_factory: Any) -> Iterator[Host]:
    made: Host = new_host("canary", os=request.param)
    install = "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy --no-install-recommends"
    made.root(f"{install} nginx openssl curl", timeout=300)
    made.root(
        f"mkdir -p {TLS} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 "
        f"-subj /CN={DOMAIN} -addext subjectAltName=DNS:{DOMAIN} -keyout {TLS}/privkey.pem -out {TLS}/fullchain.pem"
    )
    made.put("/root/service.py", SERVICE)
    role = [{"hosts": "all", "gather_facts": False, "tasks": [{"include_role": {"name": "selfhost.fleet.edge"}}]}]
    Ansible(tmp_path_factory.mktemp("edge")).playbook(role, [made], variables=slice_of(made))
    yield made


@contextmanager
def releases(edge: Host, *, wrong: int = 0, seconds: float = 0.0) -> Iterator[float]:
    """Both of them, the new one as it is said; the time from which on it counts."""
    for unit, words in (("old", "8900 0 0"), ("new", f"8901 {wrong} {seconds}")):
        edge.root(f"systemd-run --quiet --collect --unit=release-{unit} python3 /root/service.py {words}")
    try:
        edge.root(
            "for port in 8900 8901; do timeout 30 sh -c "
            '"until ss -Hltn sport = :$port | grep -q .; do sleep 0.1; done"; done; sleep 3'  # fail_timeout is 2 s
        )
        yield float(edge.root("date +%s").stdout)  # a second after what was asked before, as the log has whole ones
    finally:
        edge.root("systemctl stop release-old release-new", check=False)  # one of them may have been stopped already


def ask(edge: Host, count: int, path: str = "/") -> list[str]:
    """One after the other over one connection; their statuses."""
    command = ["curl", "--silent", "--insecure", "--max-time", "60", "--resolve", f"{DOMAIN}:443:127.0.0.1"]
    command += ["--output", "/dev/null", "--write-out", "%{http_code}\n", f"https://{DOMAIN}{path}?[1-{count}]"]
    return edge.root(command, timeout=300).stdout.split()


def gate(ansible: Ansible, edge: Host, run: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return ansible.module(MODULE, {"old": [OLD], "new": [NEW], "duration": 0, **options}, edge, **(run or {}))


def test_a_good_one(ansible: Ansible, edge: Host) -> None:
    with releases(edge) as since:
        assert set(ask(edge, 600)) == {"200"}
        found = gate(ansible, edge, since=since)
    assert (found["outcome"], found["reasons"], found["changed"]) == ("pass", [], False)
    assert (found["old"]["requests"], found["new"]["requests"]) == (450, 150)
    assert (found["old"]["timed"], found["new"]["timed"], found["damaged_lines"]) == (450, 150, 0)
    assert found["new"]["p95_ms"] is not None


def test_errors_end_it_early(ansible: Ansible, edge: Host) -> None:
    over = threading.Event()

    def users() -> None:
        while not over.is_set():
            ask(edge, 100)

    with releases(edge, wrong=3):
        asking = threading.Thread(target=users)
        asking.start()
        try:
            found = gate(ansible, edge, {"expect_failure": True}, duration=120, interval=1)
        finally:
            over.set()
            asking.join()
    assert (found["outcome"], found["reasons"]) == ("fail", ["errors"])
    assert found["elapsed"] < 60
    assert "percentage points more errors" in found["msg"]


def test_a_slow_one(ansible: Ansible, edge: Host) -> None:
    with releases(edge, seconds=0.2) as since:
        ask(edge, 400)
        found = gate(ansible, edge, {"expect_failure": True}, since=since)
        assert (found["outcome"], found["reasons"]) == ("fail", ["latency"])
        assert found["new"]["p95_ms"] >= 200 > found["latency_limit_ms"]
        # Check mode says the same, and lets it be.
        assert gate(ansible, edge, {"check": True}, since=since, duration=300)["outcome"] == "fail"
        assert gate(ansible, edge, since=since, latency_floor=5000)["outcome"] == "pass"


def test_one_that_is_gone_fails_though_its_users_see_nothing(ansible: Ansible, edge: Host) -> None:
    with releases(edge) as since:
        edge.root("systemctl stop release-new")
        assert set(ask(edge, 400)) == {"200"}
        found = gate(ansible, edge, {"expect_failure": True}, since=since)
    assert (found["outcome"], found["reasons"]) == ("fail", ["errors"])
    assert found["new"]["errors"] == found["new"]["requests"] > 0
    assert (found["old"]["requests"], found["old"]["errors"]) == (400, 0)


def test_streams_have_no_part_in_the_p95(ansible: Ansible, edge: Host) -> None:
    with releases(edge, seconds=0.2) as since:
        ask(edge, 400, "/stream")
        found = gate(ansible, edge, since=since)
    assert (found["outcome"], found["new"]["requests"], found["new"]["timed"]) == ("pass", 100, 0)


def test_a_log_that_is_rotated(ansible: Ansible, edge: Host, tmp_path: Path) -> None:
    with releases(edge) as since:
        ask(edge, 300)
        edge.root(f"mv {LOG} {LOG}.1; systemctl kill --kill-whom=main --signal=USR1 nginx")
        edge.root(f"timeout 30 sh -c 'until test -e {LOG}; do sleep 0.1; done'; sleep 1")
        ask(edge, 300)
        found = gate(ansible, edge, since=since)
    assert (found["old"]["requests"], found["new"]["requests"]) == (450, 150)


def test_nobody_came(ansible: Ansible, edge: Host) -> None:
    found = gate(ansible, edge, {"expect_failure": True}, duration=2, interval=1)
    assert found["outcome"] == "undecided"
    assert "0 of the new release and 0 of the old release" in found["msg"]
    assert gate(ansible, edge, undecided_is="pass")["outcome"] == "undecided"


def test_what_cannot_be(ansible: Ansible, edge: Host) -> None:
    def refused(**options: Any) -> str:
        return str(gate(ansible, edge, {"expect_failure": True}, **options)["msg"])

    assert "is in both old and new" in refused(new=[OLD])
    assert "is not host:port" in refused(new=["127.0.0.1"])
    assert "does not exist" in refused(log="/var/log/nginx/no.log")
    assert "significance is 2" in refused(significance=2)
