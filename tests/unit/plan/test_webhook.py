"""fleet_notify: what is refused, in words that repeat nothing of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.webhook import own_headers, shown

from .fixtures import one_host, plan


def findings(**notify: Any) -> dict[str, str]:
    return {
        finding.variable: f"{finding.problem} | {finding.remedy}"
        for finding in plan(one_host(fleet_notify=notify)).findings.items
    }


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/T0/B1", "https://[2001:db8::1]:8443/", "http://127.0.0.1:9093/x"]
)
def test_addresses(url: str) -> None:
    assert findings(url=url, headers={"Authorization": "Bearer abc\n", "X-Fleet": "one"}) == {}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hooks.example.com/s3cr3t", "begins with https://"),
        ("https:///s3cr3t", "names a host"),
        ("ftp://hooks.example.com/s3cr3t", "begins with https://"),
        ("https://hooks.example.com:port/s3cr3t", "is no address"),
        ("https://[::1/s3cr3t", "is no address"),
        ("https://hooks.example.com/s3cr3t\n", "control character"),
        ("https://ada:s3cr3t@hooks.example.com/", "user or password"),
        ("http://hooks.example.com/s3cr3t", "in the clear"),
        ("", "begins with https://"),
    ],
)
def test_what_is_no_address(url: str, words: str) -> None:
    found = findings(url=url)
    assert words in found["fleet_notify.url"] and "Write it as https://host/path" in found["fleet_notify.url"]
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize(
    ("notify", "variable"),
    [
        ({"headers": {}}, "fleet_notify.url"),
        ({"url": "https://h.example.com", "hedaers": {"A": "s3cr3t"}}, "fleet_notify.hedaers"),
        ({"url": "https://h.example.com", "headers": {"A": "x\r\ns3cr3t: 1"}}, "fleet_notify.headers.A"),
        ({"url": "https://h.example.com", "headers": {"A B": "s3cr3t"}}, "fleet_notify.headers"),
        ({"url": "https://h.example.com", "headers": {"A": ["s3cr3t"]}}, "fleet_notify.headers.A"),
        ({"url": ["s3cr3t"]}, "fleet_notify.url"),
    ],
)
def test_what_has_another_form(notify: dict[str, Any], variable: str) -> None:
    found = findings(**notify)
    assert list(found) == [variable]
    assert "s3cr3t" not in str(found)


def test_what_may_be_shown_of_it() -> None:
    assert shown("https://hooks.example.com/services/T0K3N?key=x") == "https://hooks.example.com"
    assert shown("http://127.0.0.1:9093/T0K3N") == "http://127.0.0.1:9093"
    assert own_headers({"Authorization": "Bearer abc\n"}) == {
        "Content-Type": "application/json",
        "Authorization": "Bearer abc",
    }
