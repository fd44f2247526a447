# GNU General Public License v3.0+ (see LICENSE)
"""What apt would upgrade, and having it do so in one transaction."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..packages import APT_KEEPS, INSTALL_TIMEOUT, QUIET, UPDATE_TIMEOUT, Packages, PackagesError

RETRIES = ("-o", "Acquire::Retries=3")
SECURITY = "Debian-Security:"  # the label of Debian's archive of security updates
# Inst libssl3 [3.0.1-1] (3.0.2-1 Debian:13.1/stable, Debian-Security:13/stable-security [amd64]) []
UPGRADE = re.compile(
    r"^Inst (?P<name>\S+) (?:\[(?P<installed>[^\]]+)\] )?\((?P<candidate>\S+) (?P<origins>[^)]*)\)", re.M
)
KEPT_BACK = re.compile(r"^The following packages have been kept back:\n((?: +.*\n)+)", re.M)


@dataclass(frozen=True)
class Upgrade:
    """A package with its version and the one that apt would install; `installed` is empty where an upgrade brings it along."""

    name: str
    installed: str
    candidate: str
    security: bool


@dataclass(frozen=True)
class Upgrades:
    """What apt would do, and what it would not without removing something."""

    upgrades: list[Upgrade]
    kept_back: list[str]


@dataclass(frozen=True)
class Upgrader(Packages):
    """apt, with its locks and mirrors waited for and explained as where packages are installed."""

    def upgradable(self, *, lists: Path | None = None) -> Upgrades:
        """What can be upgraded by fresh lists. These are the host's own, or a folder for them where the host is only looked at."""
        elsewhere = () if lists is None else ("-o", f"Dir::State::Lists={lists}", "-o", "Dir::Cache::pkgcache=")
        fresh = ["update", "--quiet", "--error-on=any", *RETRIES, *elsewhere]
        self._apt(fresh, "The package lists could not be read", UPDATE_TIMEOUT, self.clock() + self.lock_timeout)
        # A simulation takes no lock.
        words = ["apt-get", "upgrade", "--with-new-pkgs", "--simulate", "--no-install-recommends", *elsewhere]
        result = self.runner.run(words, timeout=UPDATE_TIMEOUT, env=QUIET)
        if not result.ok:
            raise PackagesError(
                f"What can be upgraded could not be found out. apt-get said:\n  {result.words()}\n"
                "Nothing was changed. Run again when apt-get upgrade --simulate works on this host."
            )
        return parse(result.stdout)

    def upgrade(self, names: Iterable[str] | None = None) -> None:
        """All that can be upgraded without removing anything, or these packages with what they need; one transaction."""
        chosen = ["upgrade", "--with-new-pkgs"] if names is None else ["install", "--only-upgrade"]
        words = [*chosen, "--yes", "--quiet", "--no-install-recommends", *RETRIES, *APT_KEEPS, *sorted(names or ())]
        deadline = self.clock() + self.lock_timeout
        self._apt(words, "The packages could not be upgraded", INSTALL_TIMEOUT, deadline)


def parse(said: str) -> Upgrades:
    """What a simulation printed."""
    kept = KEPT_BACK.search(said)
    upgrades = [
        Upgrade(found["name"], found["installed"] or "", found["candidate"], SECURITY in found["origins"])
        for found in UPGRADE.finditer(said)
    ]
    return Upgrades(upgrades, kept[1].split() if kept else [])
