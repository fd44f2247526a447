"""The state of a component, from its note, systemd and its probe."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.report import STYLE, Row, status_html, status_table, verdict
from ansible_collections.selfhost.fleet.plugins.module_utils.serving import notes
from ansible_collections.selfhost.fleet.plugins.module_utils.status import foundation, renewal, state

NOTE = {
    "service": "fluxbase",
    "component": "server",
    "unit": "fluxbase-server",
    "version": "2026.3.6",
    "slot": "blue",
    "probe": {"kind": "http"},
}
ACTIVE = "ActiveState=active\nActiveEnterTimestamp=Sat 2026-11-21 14:50:00 UTC\nNRestarts=2\n"


def answer(ok: bool, words: str = "") -> Any:
    return lambda probe: (ok, words)


def test_active_and_healthy() -> None:
    found = state(NOTE, lambda unit: ACTIVE, answer(True))
    assert (found["unit"], found["health"], found["restarts"]) == ("fluxbase-server@blue.service", "healthy", 2)
    assert found["since"] == "Sat 2026-11-21 14:50:00 UTC"


def test_active_is_not_healthy() -> None:
    assert state(NOTE, lambda unit: ACTIVE, answer(False, "503"))["health"] == "not healthy: 503"


def test_a_failed_unit_is_not_probed() -> None:
    def never(probe: Any) -> tuple[bool, str]:
        raise AssertionError("a unit that does not run was probed")

    assert state(NOTE, lambda unit: "ActiveState=failed\nResult=exit-code\n", never)["health"] == "failed (exit-code)"


def test_notes_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"unit": name}))
    assert [note["unit"] for note in notes(tmp_path)] == ["a", "b"]
    assert notes(tmp_path / "missing") == []


def test_what_components_stand_on() -> None:
    listing = (
        "nginx.service loaded active running A web server\n"
        "pgbouncer.service not-found inactive dead pgbouncer.service\n"
        "postgresql@17-main.service loaded failed failed PostgreSQL Cluster 17-main\n"
    )
    found = foundation(listing, lambda unit: ACTIVE if unit == "nginx.service" else "ActiveState=failed\n")
    assert [(entry["unit"], entry["health"]) for entry in found] == [
        ("nginx.service", "active"),
        ("postgresql@17-main.service", "failed"),
    ]


def test_the_table_names_every_host() -> None:
    component = state(NOTE, lambda unit: ACTIVE, answer(True))
    unit = {"unit": "nginx.service", "health": "active", "since": "-", "restarts": 0}
    hosts = {
        "app1": {"components": [component], "foundation": []},
        "edge1": {"components": [], "foundation": [unit]},
        "db2": {"components": [], "foundation": []},
        "db3": {"unreachable": True},
    }
    table = status_table([{"inventory_hostname": name, "status": found} for name, found in hosts.items()])
    rows = {line.split()[1]: line for line in table.splitlines()[1:]}
    assert "healthy" in rows["app1"]
    assert rows["edge1"].startswith("nginx ")
    assert "runs nothing" in rows["db2"]
    assert "did not answer" in rows["db3"]


def test_the_last_renewal_is_read_and_told(tmp_path: Path) -> None:
    note = tmp_path / "renewal"
    assert renewal(note) is None
    note.write_text("exit-code 2026-11-21T14:50:00Z\n")
    found = {"components": [], "foundation": [], "certificates": [], "renewal": renewal(note)}
    certificate = {
        "name": "api.example.com",
        "days_left": 62,
        "until": "2027-01-22 14:50 UTC",
        "health": "62 days left",
    }
    found["certificates"] = [certificate]
    table = status_table([{"inventory_hostname": "web1", "status": found}])
    assert "62 days left" in table
    assert "until 2027-01-22 14:50 UTC" in table
    assert "last renewal failed (exit-code)" in table
    assert "2026-11-21T14:50:00Z" in table
    note.write_text("success 2026-11-21T14:50:00Z\n")
    assert "succeeded" in status_table([{"inventory_hostname": "web1", "status": {**found, "renewal": renewal(note)}}])


# The page


class Page(HTMLParser):
    """What a reader of the page gets: cells by row, and every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "th" in self.open or "td" in self.open:
            self.rows[-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


HOSTILE = '<script>alert("&amp;")</script>'
FLEET: list[dict[str, Any]] = [
    {
        "inventory_hostname": "app1",
        "status": {
            "components": [
                {**state(NOTE, lambda unit: ACTIVE, answer(False, HOSTILE)), "service": HOSTILE, "version": HOSTILE}
            ],
            "foundation": [{"unit": "nginx.service", "health": "active", "since": "-", "restarts": 0}],
            "certificates": [
                {"name": "b.test", "days_left": 14, "until": "2026-12-05 14:50 UTC", "health": "14 days left"},
                {"name": "a.test", "days_left": 62, "until": "2027-01-22 14:50 UTC", "health": "62 days left"},
                {"name": "c.test", "days_left": -1, "until": "2026-11-20 14:50 UTC", "health": "expired"},
            ],
            "renewal": {"result": "success", "at": "2026-11-21T14:50:00Z"},
        },
    },
    {"inventory_hostname": "db1"},
]


def test_the_page_has_the_rows_of_the_table() -> None:
    page = Page(status_html(FLEET, "2026-11-21 15:00 UTC"))
    assert not page.open
    # Between two columns of the table are two spaces at least.
    lines = [re.split(r" {2,}", line) for line in status_table(FLEET).splitlines()]
    assert [[cell.lower() if row == 0 else cell for cell in cells] for row, cells in enumerate(page.rows)] == lines
    assert len(lines) == 1 + 7


def test_what_a_service_says_is_never_markup() -> None:
    text = status_html(FLEET, HOSTILE)
    assert "<script" not in text
    assert "script" not in {tag for tag, _attributes in Page(text).elements}
    assert text.count("&lt;script&gt;alert(&quot;&amp;amp;&quot;)&lt;/script&gt;") == 4


def test_the_page_stands_by_itself() -> None:
    text = status_html(FLEET, "2026-11-21 15:00 UTC")
    page = Page(text)
    assert {"src", "href", "srcset"}.isdisjoint({key for _tag, attributes in page.elements for key in attributes})
    assert not re.search(r"url\(|@import|https?:", text)
    assert "2026-11-21 15:00 UTC" in text


def test_the_page_can_be_heard() -> None:
    page = Page(status_html(FLEET, "-"))
    assert page.attributes("html") == [{"lang": "en"}]
    assert len(page.attributes("caption")) == len(page.attributes("h1")) == 1
    scopes = [(entry["scope"], entry["role"]) for entry in page.attributes("th")]
    assert scopes == [("col", "columnheader")] * 6 + [("row", "rowheader")] * 7
    # On a phone the style takes the elements' own roles away.
    assert {entry["role"] for entry in page.attributes("td")} == {"cell"}
    assert {entry["role"] for entry in page.attributes("tr")} == {"row"}


def test_every_text_stands_out_from_its_ground() -> None:
    """A contrast of 4.5 at least, as WCAG 2 (AA) wants it, in light and in dark."""
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", part)) for part in re.split("dark\\) ", STYLE)[:2])
    pairs = [(name, f"{name}-ground") for name in ("good", "notice", "bad")]
    pairs += [(text, ground) for text in ("text", "quiet") for ground in ("page", "sheet")]
    for colours in (light, dark):
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (["good", "good"], ("good", "All 2 are well")),
        (["good", "notice"], ("notice", "All 2 are well; 1 wants a look")),
        (["bad", "notice", "good"], ("bad", "1 of 3 needs attention")),
    ],
)
def test_the_verdict_is_the_worst_row(levels: list[str], words: tuple[str, str]) -> None:
    assert verdict([Row("", "", "", "", "", "", level) for level in levels]) == words
