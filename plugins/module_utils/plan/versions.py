# GNU General Public License v3.0+ (see LICENSE)
"""Versions and ranges of versions, as PEP 440 compares them (`2026.3.7-rc.13` comes before `2026.3.7`)."""

# Imported where it is used: packaging comes with ansible-core, and is on no host, by which Ansible judges module_utils.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.version import Version

# As the version of a service that is a package of Debian's: whichever its distribution has.
DISTRIBUTION = "distribution"


def parse(text: str) -> Version | None:
    """The version, or None where the text is none."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion:
        return None


def covers(versions: str, version: str) -> bool:
    """Whether a range such as `>=2026.1,<2027` holds a version; candidates count as versions."""
    from packaging.specifiers import SpecifierSet

    wanted = parse(version)
    return wanted is not None and SpecifierSet(versions).contains(wanted, prereleases=True)


def is_range(text: str) -> bool:
    """Whether a text can be read as a range."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True
