# GNU General Public License v3.0+ (see LICENSE)
"""Debian packages of a host as one transaction; nothing is asked of apt where dpkg has all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .commands import Runner

QUIET: Mapping[str, str] = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_MODE": "l"}
UPDATE_TIMEOUT = 300.0  # seconds
INSTALL_TIMEOUT = 1800.0


class PackagesError(Exception):
    """A package could not be installed; the message has apt's own words."""


@dataclass(frozen=True)
class Packages:
    """`lock_timeout`: seconds to wait for another apt or dpkg, such as unattended upgrades on a new server."""

    runner: Runner
    lock_timeout: int = 300

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the names that dpkg does not have installed."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        result = self.runner.run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev}\\n", *wanted])
        installed = {line.split()[0] for line in result.stdout.splitlines() if line.split()[1:] == ["ii"]}
        return [name for name in wanted if name not in installed]

    def install(self, names: Iterable[str]) -> None:
        """Fresh lists, then everything in one transaction; configuration files that exist are kept."""
        wanted = sorted(names)
        options = ["-o", f"DPkg::Lock::Timeout={self.lock_timeout}", "-o", "Acquire::Retries=3"]
        self._apt(
            ["apt-get", "update", "--quiet", "--error-on=any", *options],
            "The package lists could not be read",
            UPDATE_TIMEOUT,
        )
        keep = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
        self._apt(
            ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *options, *keep, *wanted],
            f"{', '.join(wanted)} could not be installed",
            INSTALL_TIMEOUT,
        )

    def _apt(self, argv: list[str], problem: str, timeout: float) -> None:
        result = self.runner.run(argv, timeout=timeout, env=QUIET)
        if result.rc != 0:
            words = [
                line
                for line in (result.stderr + "\n" + result.stdout).splitlines()
                if line.startswith(("E:", "W:", "dpkg:"))
            ]
            said = "\n  ".join(words[:12]) or (result.stderr or result.stdout)[-800:]
            raise PackagesError(
                f"{problem}. apt-get said:\n  {said}\nRun again when that is mended; what is installed already stays."
            )
