# GNU General Public License v3.0+ (see LICENSE)
# ruff: noqa: E402  (Ansible wants the documentation before the imports)
"""Modules as Ansible sends them to hosts, kept from run to run. docs/speed.md has what it wins."""

from __future__ import annotations

DOCUMENTATION = """
name: kept_modules
type: notification
short_description: Keeps modules, as they are sent to hosts, from run to run
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Ansible puts each module together with all that it imports, from their syntax trees, and forgets it when the run ends. That is more than half of
    what the controller computes in a run of this collection that changes nothing. This keeps what was built of the collection's modules.
  - What is kept belongs to the text of the collection's modules, to this ansible-core, and to this Python. Where one of them is another, it is built anew.
  - It lies in C(selfhost.fleet/modules) below E(ANSIBLE_HOME) (C(~/.ansible)), for the user alone. Where others may write there, or where a folder of
    C(module_utils) of one's own is there, nothing is kept. Nothing is shown, and nothing else is changed.
requirements:
  - "C(callbacks_enabled = selfhost.fleet.kept_modules) below C([defaults]) of ansible.cfg, or E(ANSIBLE_CALLBACKS_ENABLED=selfhost.fleet.kept_modules)"
"""

import hashlib
import os
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.release import __version__ as core

COLLECTION = "selfhost.fleet"
PLUGINS = Path(__file__).resolve().parents[1]
# As Ansible calls what it has built of them. Its own modules have one name with those that a user has in a folder `library`.
KEPT = f"ansible_collections.{COLLECTION}.plugins.modules."
UNFINISHED = (".lock", "-part")
ABANDONED = 7 * 24 * 3600  # seconds


def state_of(plugins: Path) -> str:
    """What the modules are built of."""
    state = hashlib.sha256(f"{core} {sys.version}".encode())
    for path in sorted(each for name in ("modules", "module_utils") for each in (plugins / name).rglob("*.py")):
        text = path.read_bytes()
        state.update(f"{path.relative_to(plugins)} {len(text)}\n".encode() + text)
    return state.hexdigest()[:16]


def is_mine(folder: Path) -> bool:
    """Whether nobody else can put anything there: hosts carry it out as root."""
    facts = folder.lstat()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022


class Kept:
    """What is kept in one state of the sources, and the folder in which a run looks for what it has built."""

    def __init__(self, home: Path, state: str, built: Path) -> None:
        self.home, self.folder, self.built = home, home / state, built

    def lay_out(self) -> bool:
        """Put it where the run looks; False where nothing may be kept."""
        self.home.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.home, self.folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not all(is_mine(folder) for folder in (self.home, self.folder)):
            return False
        self.folder.touch()
        for other in self.home.iterdir():
            if time.time() - other.lstat().st_mtime > ABANDONED and is_mine(other):
                shutil.rmtree(other, ignore_errors=True)  # another run may do the same
        self.built.mkdir(exist_ok=True)
        for module in self.folder.iterdir():
            if not module.name.endswith(UNFINISHED):
                (self.built / module.name).symlink_to(module)
        return True

    def keep(self) -> None:
        """What the run has built beside it."""
        for module in self.built.iterdir() if self.built.is_dir() else ():
            if module.is_symlink() or module.name.endswith(UNFINISHED) or not module.name.startswith(KEPT):
                continue
            part = self.folder / f"{module.name}.{os.getpid()}-part"
            shutil.copyfile(module, part)
            part.replace(self.folder / module.name)


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core has no types
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = f"{COLLECTION}.kept_modules"
    CALLBACK_NEEDS_ENABLED = True

    kept: Kept | None = None

    def v2_playbook_on_start(self, _playbook: Any) -> None:
        if any(Path(folder).is_dir() for folder in constants.DEFAULT_MODULE_UTILS_PATH or ()):
            return
        home = Path(constants.ANSIBLE_HOME, COLLECTION, "modules")
        kept = Kept(home, state_of(PLUGINS), Path(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache"))
        try:
            self.kept = kept if kept.lay_out() else None
        except OSError as error:  # a home that is full or read-only: the run goes on as it would without this
            self._display.warning(f"{self.CALLBACK_NAME}: nothing is kept: {error}")

    def v2_playbook_on_stats(self, _stats: Any) -> None:
        try:
            if self.kept:
                self.kept.keep()
        except OSError as error:
            self._display.warning(f"{self.CALLBACK_NAME}: not all is kept: {error}")
