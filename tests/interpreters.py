"""The interpreters of the supported releases of Python that this machine has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.13")
# Debian's interpreters have these two modules only with the package python3-venv.
ASK = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"


def find(release: str, folders: Sequence[str]) -> str | None:
    """The first interpreter of that release that runs and can make environments."""
    for folder in folders:
        candidate = Path(folder) / f"python{release}"
        if not os.access(candidate, os.X_OK):
            continue
        done = subprocess.run(
            [str(candidate), "-c", ASK],
            # A shim of pyenv runs only the versions that are chosen; other interpreters do not look at the variable.
            env={**os.environ, "PYENV_VERSION": release},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        found, _space, executable = done.stdout.strip().partition(" ")
        if done.returncode == 0 and found == release:
            return executable
    return None


def further(current: str, path: str) -> dict[str, str]:
    """The supported releases beside the current one that are on this search path, each with its interpreter."""
    folders = path.split(os.pathsep)
    found = {release: find(release, folders) for release in SUPPORTED if release != current}
    return {release: executable for release, executable in found.items() if executable}
