"""Values put into a file and taken out of it, with everything else as it was."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.selfhost.fleet.plugins.plugin_utils.secret_document import DocumentError, drop, get, load, put

PATH = ("fleet_secrets", "notes", "KEY")
WRITTEN = """\
# of the whole
---
other: {flow: [1, 2]}   # stays
fleet_secrets:
    # of FIRST
    notes:
        FIRST: 'it''s'   # beside it
        SECOND: plain

    files: {}
last: true
"""


@pytest.mark.parametrize("text", ["", "---\n", "# a comment\n---\n", "# a comment"])
def test_into_an_empty_file(text: str) -> None:
    changed = put(text, PATH, "value")
    assert changed.startswith(text)
    assert load(changed) == {"fleet_secrets": {"notes": {"KEY": "value"}}}


@pytest.mark.parametrize("value", ["plain", "0123", "a: b # c", '"\\', "yes", "{x", "- x", "é", "line\nline"])
def test_any_text_is_read_back(value: str) -> None:
    assert get(load(put(WRITTEN, PATH, value)), PATH) == value


def test_only_a_line_is_added_and_comments_stay_where_they_were() -> None:
    changed = put(WRITTEN, PATH, "value")
    assert changed == WRITTEN.replace("SECOND: plain\n", 'SECOND: plain\n        KEY: "value"\n')


@pytest.mark.parametrize("path", [("fleet_secrets", "new", "KEY"), ("new", "notes", "KEY")])
def test_mappings_that_are_missing_are_added(path: tuple[str, ...]) -> None:
    changed = put(WRITTEN, path, "value")
    assert [line for line in changed.splitlines() if line in WRITTEN.splitlines()] == WRITTEN.splitlines()
    assert get(load(changed), path) == "value"


def test_only_the_value_is_replaced() -> None:
    changed = put(WRITTEN, ("fleet_secrets", "notes", "FIRST"), "new")
    assert changed == WRITTEN.replace("'it''s'", '"new"')


def test_a_last_line_without_an_end() -> None:
    assert load(put("fleet_secrets:\n  notes:\n    A: b", PATH, "value"))["fleet_secrets"]["notes"] == {
        "A": "b",
        "KEY": "value",
    }


def test_what_was_put_in_is_taken_out_with_what_was_made_for_it() -> None:
    path = ("upcoming", "notes", "KEY")
    assert drop(put(WRITTEN, path, "value"), path) == WRITTEN
    both = put(put(WRITTEN, path, "value"), ("upcoming", "files", "KEY"), "other")
    assert load(drop(both, path))["upcoming"] == {"files": {"KEY": "other"}}


@pytest.mark.parametrize(
    "text",
    [
        "fleet_secrets: {notes: {A: b}}\n",
        "fleet_secrets:\n  notes: &anchor\n    A: b\n  files: *anchor\n",
        "fleet_secrets:\n  notes: text\n",
        "fleet_secrets: []\n",
        "- a\n",
        "a: 'not ended\n",
        "a: !vault x\n",
    ],
)
def test_what_cannot_be_changed_line_by_line_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(DocumentError) as refused:
        put(text, PATH, "the value")
    assert "the value" not in str(refused.value)
    assert "not ended" not in str(refused.value)


def test_an_old_value_over_several_lines_is_replaced_or_refused_but_never_spoilt() -> None:
    for old in ("|\n      one\n      two\n", "'one\n      two'\n", ">-\n      one\n"):
        text = f"fleet_secrets:\n  notes:\n    KEY: {old}    NEXT: kept\n"
        expected = yaml.safe_load(text)
        expected["fleet_secrets"]["notes"]["KEY"] = "new"
        try:
            changed = put(text, PATH, "new")
        except DocumentError:
            continue
        assert load(changed) == expected
