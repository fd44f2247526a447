"""CHANGELOG.md before a release and after it, by the real antsibull-changelog."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from docs.make_changelog import ROOT, changelog


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    (tmp_path / "changelogs" / "fragments").mkdir(parents=True)
    (tmp_path / "galaxy.yml").write_text(
        "{namespace: selfhost, name: fleet, version: 0.1.0, authors: [x], readme: README.md}\n"
    )
    shutil.copy(ROOT / "changelogs" / "config.yaml", tmp_path / "changelogs")
    return tmp_path


def test_a_fragment_is_shown_and_kept(collection: Path) -> None:
    fragment = collection / "changelogs" / "fragments" / "one.yml"
    fragment.write_text("---\nbugfixes:\n  - probe - it waits\n")
    text = changelog(collection)
    assert "v0\\.1\\.0" in text and "### Bug fixes" in text and "probe \\- it waits" in text
    assert fragment.exists() and not (collection / "CHANGELOG.md").exists()


def test_after_a_release_it_is_what_was_released(collection: Path) -> None:
    (collection / "changelogs" / "changelog.yaml").write_text(
        "---\nancestor: null\nreleases:\n  0.0.9:\n    changes:\n      bugfixes: [edge - it answers]\n    release_date: '2026-01-01'\n"
    )
    text = changelog(collection)
    assert "v0\\.0\\.9" in text and "edge \\- it answers" in text and "v0\\.1\\.0" not in text
