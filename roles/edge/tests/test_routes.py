# ruff: noqa: S101 (tests assert)
"""What a route's location matches, in every spelling that a framework might serve. Run with: pytest roles/edge/tests"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.fleet.plugins.filter import edge


def matches(route: dict[str, Any], path: str) -> bool:
    """As nginx does with `location ~*`, in any case; paths are given decoded and merged, as nginx compares them."""
    location = edge.edge_location(route)
    assert location.startswith('~* "')
    return re.search(location[4:-1], path, re.IGNORECASE | re.ASCII) is not None


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/METRICS", "/metrics/", "/metrics/x", "/metrics;x", "/metrics.json", "/metrics x", "/metrics?x"],
)
@pytest.mark.parametrize("written", ["/metrics", "/metrics/"])
def test_closed(written: str, path: str) -> None:
    assert matches({"path": written, "kind": "closed"}, path)


@pytest.mark.parametrize("path", ["/metricsfoo", "/metrics-2", "/metrics_x", "/x/metrics"])
def test_not_closed(path: str) -> None:
    assert not matches({"path": "/metrics", "kind": "closed"}, path)


@pytest.mark.parametrize(
    ("path", "inside"),
    [("/api/auth", True), ("/Api/Auth/login", True), ("/api/authority", False), ("/x/api/auth", False)],
)
@pytest.mark.parametrize("written", ["/api/auth", "/api/auth/"])
def test_a_prefix_is_whole_segments(written: str, path: str, inside: bool) -> None:
    assert matches({"path": written, "kind": "http"}, path) is inside


ROUTES = yaml.safe_load((Path(__file__).resolve().parents[3] / "services" / "fluxbase.yml").read_text())


def first(routes: list[dict[str, Any]], path: str) -> dict[str, Any]:
    """The route that nginx takes: the first regular expression that matches, else the prefix /."""
    named = [route for route in routes if route["path"] != "/"]
    return next((route for route in named if matches(route, path)), routes[-1])


@pytest.mark.parametrize("ending", ["", "/", "/x", ";x", ".json", "?x", " "])
@pytest.mark.parametrize(
    ("routes", "closed", "open_path"),
    [
        (ROUTES["routes"], "/dashboard/auth/signup", "/dashboard/auth/login"),
        (ROUTES["contracts"][1]["routes"], "/api/v1/admin/setup", "/api/v1/admin/users"),
    ],
    ids=["2025", "2026"],
)
def test_nobody_from_outside_makes_the_first_administrator(
    routes: list[dict[str, Any]], closed: str, open_path: str, ending: str
) -> None:
    for spelling in (closed, closed.upper(), closed.title()):
        assert first(routes, spelling + ending)["kind"] == "closed"
    for path in (open_path, open_path.upper(), f"{closed}-status", f"{closed}s"):
        assert first(routes, path)["kind"] != "closed"


def test_exact() -> None:
    route = {"path": "/ready", "kind": "closed", "match": "exact"}
    assert matches(route, "/Ready/")
    assert not matches(route, "/ready/x")


def test_special_characters_stand_for_themselves() -> None:
    route = {"path": "/.well-known/a+b", "kind": "http"}
    assert matches(route, "/.well-known/a+b")
    assert not matches(route, "/xwell-known/a+b")


def test_everything_else() -> None:
    assert edge.edge_location({"path": "/", "kind": "http"}) == "/"
    assert edge.edge_location({"path": "/", "kind": "http", "match": "exact"}) == "= /"


@pytest.mark.parametrize(
    "route", [{"path": "metrics"}, {"path": '/a" { return 200; }'}, {"path": "/a", "match": "regex"}]
)
def test_refused(route: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError):
        edge.edge_location({"kind": "http", **route})


@pytest.mark.parametrize(
    ("server", "line"),
    [
        ({"address": "192.0.2.1", "port": 8081}, "192.0.2.1:8081"),
        ({"address": "2001:db8::1", "port": 8081, "weight": 5}, "[2001:db8::1]:8081 weight=5"),
        ({"address": "app1", "port": 80, "down": True}, "app1:80 down"),
    ],
)
def test_server(server: dict[str, Any], line: str) -> None:
    assert edge.edge_server(server) == line


def test_a_wildcard_site_is_probed_by_a_name_within_it() -> None:
    site = {"domains": ["*.example.com"], "certificate": "/tls/x"}
    assert edge.edge_probe(site, [])["url"].startswith("https://selfhost-edge.example.com/")
    assert edge.edge_probe(site, [])["verify"] is False
    assert edge.edge_probe(site, [{"directory": "/tls/x", "mode": "local_ca"}])["ca_file"] == "/tls/x/ca.pem"
