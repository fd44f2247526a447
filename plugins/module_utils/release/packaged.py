# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that dpkg has installed: a folder with a link to its program and a manifest, so that all else is as for others.

There is one at a time, as dpkg keeps no former version; its name is the version of the package, with Debian's revision.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..commands import Runner
from ..packages import is_of
from .fetch import sha256_of
from .model import MANIFEST, Manifest, Place, ReleaseError, os_error, sentence
from .outcome import Outcome
from .store import Store, settle, sync_folder

WHATEVER = "distribution"
SYSTEMD = Path("/etc/systemd/system")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
UNIT = re.compile(r"/systemd/system/([^/@]+\.(?:service|socket))\Z")


@dataclass(frozen=True, kw_only=True)
class Packaged(Place):
    """`version` is the upstream one, or "distribution" for whichever dpkg has; a link to it points at what was found."""

    package: str
    program: Path
    units: tuple[str, ...] = ()

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Packaged:
        package, program = str(options["package"]), str(options.get("program") or "")
        if not PACKAGE.fullmatch(package):
            raise ReleaseError(f"package is {package!r}, which is no name of a Debian package.")
        if not program.startswith("/"):
            raise ReleaseError(f"program is {program!r}; it is the whole path of the program in the package {package}.")
        units = tuple(str(unit) for unit in options.get("units") or ())
        return cls(**cls.common(options), package=package, program=Path(program), units=units)


def ensure(
    wanted: Packaged,
    *,
    runner: Runner,
    dry_run: bool = False,
    now: Callable[[], float] = time.time,
    systemd: Path = SYSTEMD,
) -> Outcome:
    store = Store(wanted)
    before = store.state()
    found = _installed(wanted, runner)
    if dry_run and not _is_wanted(wanted, found):
        # The role baseline would have put it there before.
        links = {**before["links"], **{name: to for name, to in wanted.links.items() if to}}
        return Outcome(
            wanted=wanted, installed=True, before=before, after={"releases": [wanted.version], "links": links}
        )
    _refuse_another(wanted, found)
    # An epoch, as in 1:2.3-4, would be no name for a folder.
    release = replace(wanted, version=found.partition(":")[2] or found)
    present = _present(release, found)
    for name in wanted.links:
        store.check_link(name)
    links = {name: release.version if to == wanted.version else to for name, to in wanted.links.items()}
    former = [name for name, manifest in store.installed().items() if manifest.package and name != release.version]
    after = {
        "releases": sorted({*before["releases"], release.version} - set(former)),
        "links": {name: to for name, to in sorted({**before["links"], **links}.items()) if to is not None},
    }
    outcome = Outcome(wanted=release, installed=not present, before=before, after=after, removed=tuple(former))
    if dry_run or (present and not outcome.changed):
        return outcome
    try:
        with store.locked():
            store.sweep()
            if not present:
                _refuse_running(wanted, runner)
                _switch_off(wanted, systemd)
                _record(release, found, store, now)
            for name, to in links.items():
                store.point(name, to)
            for name in former:
                store.remove(name)
    except OSError as error:
        raise os_error(error, f"Noting {found} of {wanted.package}", wanted.root) from error
    return outcome


def _installed(wanted: Packaged, runner: Runner) -> str:
    """The version that dpkg has, empty for none."""
    result = runner.run(["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Version}", wanted.package])
    status, _space, version = result.stdout.strip().partition(" ")
    return version.strip() if result.ok and status == "ii" else ""


def _is_wanted(wanted: Packaged, found: str) -> bool:
    return bool(found) and (wanted.version == WHATEVER or is_of(found, wanted.version))


def _refuse_another(wanted: Packaged, found: str) -> None:
    if not found:
        raise ReleaseError(
            f"The package {wanted.package} is not installed on this host. The role baseline installs it: run playbooks/site.yml."
        )
    if not _is_wanted(wanted, found):
        raise ReleaseError(
            f"The package {wanted.package} is {found} on this host, and {wanted.version} was asked for. Ask for the version that "
            f"there is, or for {WHATEVER}; apt-cache policy {wanted.package} shows what can be had. What runs goes on running."
        )
    if not wanted.program.is_file():
        raise ReleaseError(
            f"The package {wanted.package} has no program {wanted.program}. Set release.executable to its path."
        )


def _present(release: Packaged, found: str) -> bool:
    manifest = Manifest.read(release.path)
    link = release.path / release.executable
    if manifest is None or manifest.package != f"{release.package} {found}":
        return False
    if not link.is_symlink() or link.readlink() != release.program:
        return False
    status = release.program.stat()
    # As of every release: its bytes are only read where size or time are others.
    same = (status.st_size, status.st_mtime_ns) == (manifest.size, manifest.mtime_ns)
    if not same and sha256_of(release.program) != manifest.sha256:
        raise ReleaseError(
            f"{release.program} was changed since {found} was installed. Put the package's own in its place: "
            f"apt-get install --reinstall {release.package}"
        )
    return True


def _refuse_running(wanted: Packaged, runner: Runner) -> None:
    """A unit of the package's own that runs beside ours would share its ports and its data."""
    listing = runner.run(["dpkg-query", "--listfiles", wanted.package]).stdout.splitlines()
    units = sorted({match[1] for line in listing if (match := UNIT.search(line))})
    if not units:
        return
    states = runner.run(["systemctl", "is-active", "--", *units]).stdout.split()
    running = [unit for unit, state in zip(units, states, strict=False) if state in ("active", "activating")]
    if running:
        raise ReleaseError(
            f"The package {wanted.package} runs {sentence(running)} of its own on this host. Name all of its units in the "
            "definition, as release.units: they are stopped and masked then, and ours takes their place."
        )


def _switch_off(wanted: Packaged, systemd: Path) -> None:
    """So that none of them starts on the day on which it is masked no longer. `systemctl disable` leaves the links of a masked unit."""
    folders = [*systemd.glob("*.wants"), *systemd.glob("*.requires")]
    for link in (folder / unit for folder in folders for unit in wanted.units):
        if link.is_symlink():
            link.unlink()


def _record(release: Packaged, found: str, store: Store, now: Callable[[], float]) -> None:
    if release.path.exists():
        store.remove(release.version)
    with store.staging() as staging:
        content = staging / "content"
        content.mkdir()
        content.chmod(0o755)
        (content / release.executable).symlink_to(release.program)
        status, digest = release.program.stat(), sha256_of(release.program)
        manifest = Manifest(
            version=release.version,
            checksum=f"sha256:{digest}",
            executable=release.executable,
            sha256=digest,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            installed=now(),
            package=f"{release.package} {found}",
        )
        path = content / MANIFEST
        path.write_text(manifest.as_json(), encoding="utf-8")
        path.chmod(0o644)
        settle(content)
        content.rename(release.path)
        sync_folder(release.releases)
