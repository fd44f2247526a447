"""Modules as Ansible sends them to hosts, kept from run to run, and compiled.

Ansible builds each anew in every run, from the syntax tree of all that it imports: a quarter of the controller's work in a run that changes nothing.
And a host compiles all of it before each call, as Python keeps nothing that comes out of an archive: half of what a small call takes.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from .engine import docker
from .image import image
from .paths import REPOSITORY, STATE, locked

ABANDONED = 24 * 3600  # seconds
NOT_MODULES = (".lock", "-part", ".compiled")
# Code of another Python (Debian 12's) is passed over where it is imported, and the source beside it is taken.
COMPILE = """
import glob, zipfile
from importlib import util, _bootstrap_external
for path in glob.glob("/modules/*"):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                source = archive.read(name)
                code = compile(source, name, "exec", dont_inherit=True)
                archive.writestr(f"{name}c", _bootstrap_external._code_to_hash_pyc(code, util.source_hash(source), False))
"""


@functools.cache
def _folder() -> Path:
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
    return home / key


def folder() -> str:
    """Of this state of the sources, this Python and this ansible-core; those that nobody has used for a day are gone."""
    home = _folder()
    with locked("modules"):
        new = [path for path in home.iterdir() if not (path.name.endswith(NOT_MODULES) or _mark(path).exists())]
        if new:
            _compile(new)
    return str(home)


def _mark(module: Path) -> Path:
    return module.with_name(f"{module.name}.compiled")


def _compile(modules: list[Path]) -> None:
    """By the Python of a host, in a container that is gone afterwards."""
    # It takes its time, and no other part of the test bed wants it.
    from ansible.executor.module_common import _CachedModule

    built = {path: _CachedModule.load(str(path)) for path in modules}
    with tempfile.TemporaryDirectory(dir=STATE) as scratch:
        archives = {path: Path(scratch, path.name) for path in built}
        for path, archive in archives.items():
            archive.write_bytes(base64.b64decode(built[path].zip_data))
        python = ("--volume", f"{scratch}:/modules", "--entrypoint", "python3", image("debian-13"), "-")
        docker("run", "--rm", "--interactive", *python, stdin=COMPILE)
        for path, archive in archives.items():
            data = base64.b64encode(archive.read_bytes())
            dataclasses.replace(built[path], zip_data=data).dump(str(path))
            _mark(path).touch()
