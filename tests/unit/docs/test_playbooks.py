"""What every playbook says of itself, for docs/reference and for whoever opens the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.make_reference import ROOT, first_sentence, header, playbook_variables

PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
# What several of them do.
TASKS = "".join(path.read_text() for path in sorted((ROOT / "playbooks" / "tasks").rglob("*.yml")))


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_what_it_does_and_what_its_variables_mean(playbook: Path) -> None:
    text = playbook.read_text()
    assert first_sentence(header(text))
    # A line of the first comment for each: # - name: meaning
    assert [name for name, (_default, meaning) in playbook_variables(text).items() if not meaning] == []
    assert [name for name in playbook_variables(text) if name not in text.partition("\n---\n")[2] + TASKS] == []


def test_a_meaning_may_go_on_in_the_next_line() -> None:
    text = (
        "# What it does.\n#   ansible-playbook x -e first=1\n# - first: one thing\n#   and another\n# - second: more\n"
        "# - third: of a shared task\n---\n- tasks: []\n  when: second | default('') != first\n"
    )
    said = ["- first: one thing and another", "- second: more", "- third: of a shared task"]
    assert header(text) == ["What it does.", "  ansible-playbook x -e first=1", *said]
    assert playbook_variables(text) == {
        "first": ("required", "one thing and another"),
        "second": ("`''`", "more"),
        "third": ("", "of a shared task"),
    }
