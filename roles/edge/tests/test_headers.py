# ruff: noqa: S101 (tests assert)
"""What the edge adds to answers. Run with: pytest roles/edge/tests"""

from __future__ import annotations

from test_log import render
from test_sticky import site


def added(headers: dict[str, str]) -> dict[str, str]:
    """Header and variable, for a service with these of its own."""
    text = render("headers.conf.j2", site={"name": "notes", "headers": headers})
    lines = [line.split() for line in text.splitlines() if line.startswith("add_header ")]
    return {line[1]: line[2] for line in lines}


def test_a_service_s_own_headers_come_over_those_of_all() -> None:
    assert added({})["X-Frame-Options"] == "$edge_notes_x_frame_options"
    assert "X-Frame-Options" not in added({"X-Frame-Options": ""})
    assert added({"X-Robots-Tag": "noindex"})["X-Robots-Tag"] == "$edge_notes_x_robots_tag"
    maps = render("site.conf.j2", site=site(share=None) | {"headers": {"X-Robots-Tag": "noindex"}})
    assert 'map $upstream_http_x_robots_tag $edge_notes_x_robots_tag {\n    "" "noindex";' in maps
