"""Modules as Ansible sends them to hosts, kept from run to run.

Ansible builds each anew in every run, from the syntax tree of all that it imports: a quarter of the controller's work in a run that changes nothing.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import sys
import time
from importlib.metadata import version

from .paths import REPOSITORY, STATE, locked

ABANDONED = 24 * 3600  # seconds


@functools.cache
def folder() -> str:
    """Of this state of the sources, this Python and this ansible-core; those that nobody has used for a day are gone."""
    sources = sorted(
        path for name in ("modules", "module_utils") for path in (REPOSITORY / "plugins" / name).rglob("*.py")
    )
    seen = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in sources]
    key = hashlib.sha256(repr((seen, sys.version, version("ansible-core"))).encode()).hexdigest()[:12]
    home = STATE / "modules"
    with locked("modules"):
        (home / key).mkdir(parents=True, exist_ok=True)
        (home / key).touch()
        for other in home.iterdir():
            if time.time() - other.stat().st_mtime > ABANDONED:
                shutil.rmtree(other)
    return str(home / key)
