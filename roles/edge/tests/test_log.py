# ruff: noqa: S101, S701 (tests assert; what is rendered is no HTML)
"""The access log has what a canary is judged by. Run with: pytest roles/edge/tests"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.filter.core import combine
from ansible_collections.selfhost.fleet.plugins.filter import edge
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.access_log import Entry
from jinja2 import Environment

ROLE = Path(__file__).resolve().parents[1]
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
VARS = yaml.safe_load((ROLE / "vars/main.yml").read_text())
LOGGED = {
    "time_iso8601": "2026-01-31T12:00:00+01:00",
    "status": "200",
    "bytes_sent": "1000",
    "request_length": "300",
    "request_time": "0.250",
    "upstream_addr": "192.0.2.11:8081, 192.0.2.12:8081",
    "upstream_status": "502, 200",
    "upstream_connect_time": "0.001, 0.002",
    "upstream_response_time": "0.002, 0.248",
}


def render(template: str, **variables: Any) -> str:
    environment = Environment(trim_blocks=True, keep_trailing_newline=True)  # as config_set's
    environment.filters |= {f"selfhost.fleet.{name}": each for name, each in edge.FilterModule().filters().items()}
    environment.filters["combine"] = combine
    text = (ROLE / "templates" / template).read_text()
    return environment.from_string(text).render(DEFAULTS | VARS | {"fleet": {"os": "debian-13"}} | variables)


def log_format() -> str:
    (words,) = re.findall(r"log_format selfhost escape=json(.*?);", render("nginx.conf.j2"), re.DOTALL)
    return "".join(re.findall("'(.*)'", words))


def logged(kind: str) -> str:
    return re.sub(r"\$(\w+)", lambda found: {"edge_kind": kind, **LOGGED}.get(found[1], ""), log_format())


@pytest.mark.parametrize(("kind", "milliseconds"), [("http", 248), ("streaming", None), ("websocket", None)])
def test_the_gate_reads_what_the_role_has_nginx_write(kind: str, milliseconds: int | None) -> None:
    entry = Entry.of(logged(kind).encode())
    assert entry.time == 1769857200
    assert entry.answers == (("192.0.2.11:8081", True, None), ("192.0.2.12:8081", False, milliseconds))


def test_no_query_is_logged() -> None:
    named = set(re.findall(r"\$(\w+)", log_format()))
    assert named >= {"uri", "upstream_addr"}
    assert not named & {"request", "request_uri", "args", "query_string", "http_referer", "http_authorization"}


def test_a_route_that_lasts_says_so() -> None:
    route = {"match": "prefix", "upstream": "notes", "timeout": 60, "limit": None, "body_limit": None, "login": None}
    site = {
        "name": "notes",
        "domains": ["notes.test"],
        "certificate": "/tls",
        "upstreams": [],
        "body_limit": "8k",
        "connections_per_client": 5,
        "limits": [],
        "routes": [
            {**route, "path": f"/{kind}", "kind": kind} for kind in ("streaming", "websocket", "http", "closed")
        ],
    }
    locations = render("site.conf.j2", site=site).split("location ")
    kinds = {location.split('"')[1]: re.findall(r"set \$edge_kind (\w+);", location) for location in locations[-4:]}
    assert list(kinds.values()) == [["streaming"], ["websocket"], [], []]
    # What sets it nowhere has a value all the same: nginx refuses a variable that it does not know.
    assert re.search(r'map "" \$edge_kind \{\s+default http;', render("nginx.conf.j2"))
