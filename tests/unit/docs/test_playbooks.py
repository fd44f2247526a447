"""What every playbook says of itself, for docs/reference and for whoever opens the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.make_reference import ROOT, first_sentence, header, playbook_variables

PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_what_it_does_and_what_its_variables_mean(playbook: Path) -> None:
    text = playbook.read_text()
    assert first_sentence(header(text))
    # A line of the first comment for each: # - name: meaning
    assert [name for name, (_default, meaning) in playbook_variables(text).items() if not meaning] == []
    assert [name for name in playbook_variables(text) if name not in text.partition("\n---\n")[2]] == []
