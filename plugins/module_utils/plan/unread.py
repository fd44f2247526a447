# GNU General Public License v3.0+ (see LICENSE)
"""Files of variables that Ansible passes over without a word, since a folder of their name lies beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .findings import Finding

FOLDERS = ("group_vars", "host_vars")
SUFFIXES = (".yml", ".yaml", ".json")  # in Ansible's order, behind no suffix at all


def unread(sources: Iterable[Path]) -> list[Finding]:
    """Of the sources of an inventory, files or folders: Ansible reads the first of `all/` (or a file `all`), `all.yml`, ... and no other."""
    found = []
    for beside in dict.fromkeys(source.parent if source.is_file() else source for source in sources):
        for name in FOLDERS:
            folder = beside / name
            for first in sorted(folder.iterdir()) if folder.is_dir() else ():
                for hidden in (first.with_name(first.name + suffix) for suffix in SUFFIXES):
                    if hidden.is_file() and first.is_dir():
                        remedy = f"Move it into the folder: mv {hidden} {first / f'of-{hidden.name}'}"
                        found.append(Finding(f"{name}/{hidden.name}", f"is not read, as {first} is there", remedy))
    return found
