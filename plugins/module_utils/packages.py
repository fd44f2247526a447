# GNU General Public License v3.0+ (see LICENSE)
"""Debian packages of a host as one transaction; nothing is asked of apt where dpkg has all of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .commands import CommandResult, Runner

QUIET: Mapping[str, str] = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_MODE": "l"}
UPDATE_TIMEOUT = 300.0  # seconds
INSTALL_TIMEOUT = 1800.0
LOCK_INTERVAL = 2.0
# Configuration files that exist are kept: nobody is there to answer a question.
KEEP = ("--force-confdef", "--force-confold")
APT_KEEPS = tuple(word for option in KEEP for word in ("-o", f"Dpkg::Options::={option}"))
INTERRUPTED = "dpkg was interrupted"
LOCKED = re.compile(r"Could not get lock|Unable to acquire the dpkg frontend lock|Unable to lock")
LOCK_FILE = re.compile(r"(/var/\S+?/lock(?:-frontend)?)\b")
HOLDER = re.compile(r"held by process (\d+ \([^)]*\))")
REMEDIES = (
    (
        # "not yet valid" of a certificate, "not valid yet" of a Release file.
        re.compile(r"not valid yet|not yet valid|is expired|has expired"),
        "This host's clock says {now} UTC. Where that is wrong, see timedatectl and baseline_time_servers.",
    ),
    (
        re.compile(r"enough free space|No space left"),
        "Free some space there: apt-get clean removes packages that were downloaded.",
    ),
    (
        re.compile(r"dpkg was interrupted|error processing package .* \(--configure\)"),
        "A former installation was cut off and could not be finished: dpkg --configure -a, by hand, shows why.",
    ),
    (
        re.compile(r"Unable to locate|has no installation candidate"),
        "Is the name right, and is its repository among /etc/apt/sources.list and /etc/apt/sources.list.d? Of a service that is a package, only "
        "the version that the inventory names is let in: apt-cache policy shows which there are, and `version: distribution` takes any.",
    ),
    (
        re.compile(r"Failed to fetch|Some index files failed|Unable to fetch|not finished after"),
        "Does this host reach the mirrors named in /etc/apt/sources.list and /etc/apt/sources.list.d? "
        "A proxy is set as Acquire::http::Proxy in /etc/apt/apt.conf.d.",
    ),
)


class PackagesError(Exception):
    """A package could not be installed; the message has apt's own words."""


def versions_of(upstream: str) -> str:
    """Debian's versions of an upstream one, as a regular expression of Python and of apt: 1.2 is 1.2-3, 1:1.2+ds-3+b4 and 1.2-3+deb13u1."""
    plain = re.sub(r"([.+])", r"[\1]", upstream)
    return f"^([0-9]+:)?{plain}([-+].*)?$"


def is_of(version: str, upstream: str) -> bool:
    return re.search(versions_of(upstream), version) is not None


@dataclass(frozen=True)
class Packages:
    """`lock_timeout`: seconds to wait for another apt or dpkg, such as unattended upgrades on a new server."""

    runner: Runner
    lock_timeout: int = 300
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def missing(self, names: Iterable[str], versions: Mapping[str, str] | None = None) -> list[str]:
        """Those of the names that dpkg does not have installed, or not in the upstream version that is asked for."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        result = self.runner.run(
            ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev} ${Version}\\n", *wanted]
        )
        lines = [line.split() for line in result.stdout.splitlines()]
        installed = {line[0]: line[2] for line in lines if line[1:2] == ["ii"]}
        pinned = versions or {}
        return [
            name
            for name in wanted
            if name not in installed or (name in pinned and not is_of(installed[name], pinned[name]))
        ]

    def install(self, names: Iterable[str], versions: Mapping[str, str] | None = None) -> None:
        """Fresh lists, then everything in one transaction; configuration files that exist are kept.

        `versions` are for the message: apt has its own word for which it takes.
        """
        wanted = sorted(names)
        shown = ", ".join(f"{name} {(versions or {}).get(name, '')}".rstrip() for name in wanted)
        deadline = self.clock() + self.lock_timeout
        fresh = ["update", "--quiet", "--error-on=any", "-o", "Acquire::Retries=3"]
        self._apt(fresh, "The package lists could not be read", UPDATE_TIMEOUT, deadline)
        options = ["--yes", "--quiet", "--no-install-recommends", "-o", "Acquire::Retries=3", *APT_KEEPS]
        install = ["install", *options, *wanted]
        self._apt(install, f"{shown} could not be installed", INSTALL_TIMEOUT, deadline)

    def _apt(self, words: list[str], problem: str, timeout: float, deadline: float) -> None:
        finished = False
        while True:
            # apt itself waits for some of its locks only, and names no holder of those.
            result = self.runner.run(["apt-get", *words], timeout=timeout, env=QUIET)
            if result.rc == 0:
                return
            if INTERRUPTED in result.stderr and not finished:
                # A former run was cut off in the middle; apt does nothing before that is finished.
                finished = True
                self._finish(problem)
                continue
            locked = LOCKED.search(result.stderr) is not None
            if not locked or self.clock() >= deadline:
                raise PackagesError(self._locked(problem, result) if locked else _refused(problem, result))
            self.sleep(LOCK_INTERVAL)

    def _finish(self, problem: str) -> None:
        result = self.runner.run(["dpkg", "--configure", "--pending", *KEEP], timeout=INSTALL_TIMEOUT, env=QUIET)
        if result.rc != 0:
            raise PackagesError(_refused(f"{problem}: dpkg --configure failed", result))

    def _locked(self, problem: str, result: CommandResult) -> str:
        file, holder = LOCK_FILE.search(result.stderr), HOLDER.search(result.stderr)
        return (
            f"{problem}, and nothing was changed: for {self.lock_timeout} s another program has held "
            f"{file[1] if file else 'the lock of apt'}: process {holder[1] if holder else 'unknown to apt'}. Wait until it "
            "has ended (unattended upgrades of a new server take some minutes), then run again; or raise "
            "baseline_packages_lock_timeout."
        )


def _refused(problem: str, result: CommandResult) -> str:
    lines = (result.stderr + "\n" + result.stdout).splitlines()
    words = [line for line in lines if line.startswith(("E:", "W:", "Err:", "dpkg:"))]
    said = "\n  ".join(dict.fromkeys(words[:12])) or (result.stderr or result.stdout)[-800:].strip()
    now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    remedy = next((f" {text.format(now=now)}" for pattern, text in REMEDIES if pattern.search(said)), "")
    return (
        f"{problem}. apt-get said:\n  {said}\nWhat is installed already stays.{remedy} Run again when that is mended."
    )
