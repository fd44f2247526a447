# ruff: noqa: S101 (tests assert)
"""Users who stay with one version while two serve. Run with: pytest roles/edge/tests"""

from __future__ import annotations

import re
from typing import Any

import pytest
from test_log import render

USERS = [f"{number:032x}" for number in range(2000)]


def site(by: str = "cookie", share: float | None = 25.0, salt: str = "2_0") -> dict[str, Any]:
    route = {"match": "prefix", "upstream": "notes_server", "timeout": 60, "limit": None, "body_limit": None}
    servers = [
        {"address": "192.0.2.11", "port": 8081, "weight": 75, "host": "app1"},
        {"address": "192.0.2.11", "port": 8082, "weight": 25, "host": "app1", "backup": True},
    ]
    made: dict[str, Any] = {
        "name": "notes",
        "domains": ["notes.test"],
        "certificate": "/tls",
        "upstreams": [{"name": "notes_server.old", "keepalive": 32, "servers": servers}],
        "body_limit": "8k",
        "connections_per_client": 5,
        "limits": [],
        "routes": [
            {**route, "path": "/live", "kind": "websocket", "login": None},
            {**route, "path": "/", "kind": "http", "login": None},
        ],
    }
    return made if share is None else {**made, "sticky": {"by": by, "share": share, "salt": salt, "tries": 3}}


def murmur(data: bytes) -> int:
    """MurmurHash2 with the seed 0, as nginx's split_clients takes it."""
    mask, factor = 0xFFFFFFFF, 0x5BD1E995
    found = len(data)
    whole = len(data) - len(data) % 4
    for place in range(0, whole, 4):
        part = int.from_bytes(data[place : place + 4], "little") * factor & mask
        part = (part ^ part >> 24) * factor & mask
        found = found * factor & mask ^ part
    if whole < len(data):
        found = (found ^ int.from_bytes(data[whole:], "little")) * factor & mask
    found = (found ^ found >> 13) * factor & mask
    return found ^ found >> 15


def on_new(made: dict[str, Any]) -> set[str]:
    """Those of the users whom the rendered file sends to the new version."""
    (found,) = re.findall(r'split_clients "(.*?)\$\w+" \$\w+ \{\s+([\d.]+)% \.new;', render("site.conf.j2", site=made))
    prefix, share = found[0], float(found[1])
    return {user for user in USERS if murmur(f"{prefix}{user}".encode()) < share * 2**32 / 100}


@pytest.mark.parametrize("by", ["cookie", "address"])
def test_who_is_on_the_new_version_stays_there_as_its_share_grows(by: str) -> None:
    groups = [on_new(site(by, share)) for share in (10, 33.33, 50, 90)]
    for smaller, larger in zip(groups, groups[1:], strict=False):
        assert smaller < larger
    assert [round(100 * len(group) / len(USERS)) for group in groups] == pytest.approx([10, 33, 50, 90], abs=4)


def test_other_users_meet_the_next_version_first() -> None:
    assert len(on_new(site(share=10)) & on_new(site(share=10, salt="2_1"))) < 0.3 * len(on_new(site(share=10)))


def test_the_cookie_is_the_edge_s_own_and_is_set_once() -> None:
    text, headers = render("site.conf.j2", site=site()), render("headers.conf.j2", site=site())
    assert 'default "selfhost_notes=$request_id; Path=/; Secure; HttpOnly; SameSite=Lax";' in text
    assert 'split_clients "2_0 $edge_notes_user" $edge_notes_version {' in text
    # Whoever has one gets none again, and keeps its place; what is no mark of ours is none.
    assert text.count('"~^[0-9a-f]{32}$" $cookie_selfhost_notes;\n    default $request_id;') == 1
    assert text.count('map $cookie_selfhost_notes $edge_notes_cookie {\n    "~^[0-9a-f]{32}$" "";') == 1
    assert headers.endswith("add_header Set-Cookie $edge_notes_cookie always;\n")


def test_by_address_no_cookie_is_set() -> None:
    text = render("site.conf.j2", site=site("address")) + render("headers.conf.j2", site=site("address"))
    assert 'split_clients "2_0 $edge_client" $edge_notes_version {' in text
    assert "cookie" not in text.lower()


def test_every_route_goes_to_the_user_s_version() -> None:
    text = render("site.conf.j2", site=site())
    assert re.findall(r"proxy_pass (\S+);", text) == ["http://notes_server$edge_notes_version"] * 2
    assert "proxy_next_upstream_tries 3;" in text
    upstreams = render("upstreams.conf.j2", site=site())
    assert "upstream notes_server.old {" in upstreams
    assert "server 192.0.2.11:8082 weight=25 backup max_fails=3 fail_timeout=2s;" in upstreams


def test_while_one_version_serves_nothing_of_it_is_there() -> None:
    made = site(share=None)
    text = render("site.conf.j2", site=made) + render("headers.conf.j2", site=made)
    assert not re.search(r"cookie|split_clients|_version", text, re.IGNORECASE)
    assert re.findall(r"proxy_pass (\S+);", text) == ["http://notes_server"] * 2
    assert "proxy_next_upstream_tries 2;" in text
