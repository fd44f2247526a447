# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The live table, by way of nft. Only the table named here is ever read, written or deleted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from .rules import TABLE, FirewallError

# Without counters, and without the sources that sets have counted: neither is part of the rules.
LIST = ("--stateless", "--terse", "list", "table", "inet")
Run = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]


class Kernel:
    """The live table, by way of nft."""

    def __init__(self, run: Run, *, nft: str = "/usr/sbin/nft", unshare: str = "/usr/bin/unshare") -> None:
        self._run = run
        self.nft = nft
        self._unshare = unshare

    @property
    def available(self) -> bool:
        """Whether nft is installed; on a bare host in check mode it is not."""
        return Path(self.nft).exists()

    def live(self) -> str | None:
        """The table as the kernel has it, without counters and counted sources; None where it is absent."""
        listed = self._run([self.nft, *LIST, TABLE])
        if listed.returncode == 0:
            return listed.stdout
        if "No such file or directory" in listed.stderr:
            return None
        raise FirewallError(f"nft cannot list the table inet {TABLE}: {listed.stderr.strip()}")

    def as_loaded(self, path: Path) -> str:
        """What the kernel would make of the file, tried out in a network namespace of its own, where it touches nobody.

        It validates more than `nft --check` does, and gives the kernel's own way of writing the rules, so that the live
        table can be compared as text.
        """
        script = 'file=$1; shift; "$1" -f "$file" && exec "$@"'
        listing = [self.nft, *LIST, TABLE]
        tried = self._run([self._unshare, "--net", "/bin/sh", "-c", script, "sh", str(path), *listing])
        if tried.returncode != 0:
            raise FirewallError(f"nft refuses the ruleset: {tried.stderr.strip()}")
        return tried.stdout

    def load(self, path: Path) -> None:
        """Replace the table by the file's, in one transaction."""
        loaded = self._run([self.nft, "-f", str(path)])
        if loaded.returncode != 0:
            raise FirewallError(f"nft cannot load {path}: {loaded.stderr.strip()}")


def restore_text(live: str | None) -> str:
    """The text for `nft -f` that brings a listed table back, or takes ours away where there was none."""
    return f"table inet {TABLE}\ndelete table inet {TABLE}\n{live or ''}"
