# GNU General Public License v3.0+ (see LICENSE)
"""Versions and ranges of versions, as PEP 440 compares them (`2026.3.7-rc.13` comes before `2026.3.7`)."""

from __future__ import annotations

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version


def parse(text: str) -> Version | None:
    """The version, or None where the text is none."""
    try:
        return Version(text)
    except InvalidVersion:
        return None


def covers(versions: str, version: str) -> bool:
    """Whether a range such as `>=2026.1,<2027` holds a version; candidates count as versions."""
    wanted = parse(version)
    return wanted is not None and SpecifierSet(versions).contains(wanted, prereleases=True)


def is_range(text: str) -> bool:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True
