# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps secrets out of what other programs say about the files that hold them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

MASK = "(secret)"
_TRIVIAL = {"true", "false", "none", "null", "yes", "no", "on", "off", "localhost", "production"}


class Redactor:
    """Replaces the lines, values, quoted words and passwords in addresses of secret files, the longest first.

    A secret file has plain settings too. One that occurs in `known`, what the operator is shown anyway (paths, units, addresses that are
    probed), is none of its secrets, and without it the message could not be read.
    """

    def __init__(self, contents: Iterable[bytes], *, known: Collection[str] = ()) -> None:
        fragments: set[str] = set()
        for content in contents:
            text = content.decode(errors="replace")
            for line in text.splitlines():
                fragments |= _fragments(line.strip())
        secret = (fragment for fragment in fragments if not any(fragment in text for text in known))
        self._fragments = sorted(secret, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for fragment in self._fragments:
            text = text.replace(fragment, MASK)
        return text


def _fragments(line: str) -> set[str]:
    found = {line} if len(line) >= 8 else set()
    value = re.match(r"[^=:\s]+\s*[=:]\s*(.+)", line)
    if value:
        found.add(value.group(1).strip())
        found.add(value.group(1).strip().strip("\"'"))
    elif line and not re.search(r"\s", line):
        found.add(line)
    found.update(re.findall(r'"([^"]+)"', line))
    found.update(re.findall(r"'([^']+)'", line))
    found.update(re.findall(r"://[^:/@\s]*:([^@\s]+)@", line))
    found.update(word.strip("\"',;") for word in line.split() if len(word) >= 16)
    return {
        item
        for item in found
        if len(item) >= 4 and item.lower() not in _TRIVIAL and not re.fullmatch(r"\d{1,5}|[\W_]+", item)
    }
