"""CHANGELOG.md, of what was released and of the fragments since: `make docs` writes it, with --check only a difference is shown.

`antsibull-changelog release` uses up the fragments. This is its work on a copy, so that they stay until there is a release.
"""

from __future__ import annotations

import argparse
import difflib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = "CHANGELOG.md"
# The day of a release is not in CHANGELOG.md; a fixed one keeps the day of today out of the matter.
DAY = "2000-01-01"


def changelog(root: Path) -> str:
    """The text for the collection in this folder."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(root / "changelogs", copy / "changelogs")
        shutil.copy(root / "galaxy.yml", copy)
        unreleased = any((copy / "changelogs" / "fragments").glob("*.yml"))
        command = ["release", "--date", DAY] if unreleased else ["generate"]
        tools = Path(sys.executable).parent
        command += ["--ansible-doc-bin", str(tools / "ansible-doc")]
        subprocess.run([tools / "antsibull-changelog", *command], cwd=copy, check=True)
        return (copy / CHANGELOG).read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail with the difference")
    check = parser.parse_args().check
    wanted, present = changelog(ROOT), (ROOT / CHANGELOG).read_text()
    if not check:
        (ROOT / CHANGELOG).write_text(wanted)
        return 0
    print(
        "".join(difflib.unified_diff(present.splitlines(True), wanted.splitlines(True), CHANGELOG, "current")), end=""
    )
    print(f"{CHANGELOG} is current" if wanted == present else f"{CHANGELOG} is not current; run: make docs")
    return int(wanted != present)


if __name__ == "__main__":
    sys.exit(main())
