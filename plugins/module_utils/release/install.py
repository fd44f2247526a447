# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a component's folder to what is asked for: the release, then the links, then what may go."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import fetch, retention
from .model import MANIFEST, Manifest, ReleaseError, Wanted, os_error, sentence
from .outcome import Outcome
from .program import UNPRIVILEGED, check_version
from .store import Store, settle, sync_folder
from .unpack import archive_kind, unpack


@dataclass(frozen=True, kw_only=True)
class Host:
    """What is outside of the component's folder; tests put their own."""

    proc: Path = Path("/proc")
    user: str = UNPRIVILEGED
    now: Callable[[], float] = time.time
    tls: ssl.SSLContext | None = None
    sleep: Callable[[float], None] = time.sleep


def ensure(
    wanted: Wanted, *, delivered: Path | None = None, dry_run: bool = False, host: Host | None = None
) -> Outcome:
    """`delivered`: the controller's file as it came to this host. Without it, `needed` says that it has to come."""
    host = host or Host()
    store = Store(wanted)
    present = _present(wanted)
    _check_links(wanted, store, store.installed())
    before = store.state()
    if not present and delivered is None and not wanted.remote and not wanted.source_on_host:
        outcome = _foresee(wanted, store, host, before, installs=True)
        return replace(outcome, needed=True)
    if dry_run:
        if not present and wanted.source_on_host:
            _check_file(Path(wanted.source), wanted)
        return _foresee(wanted, store, host, before, installs=not present)
    if present and not _links_to_change(wanted, before) and len(before["releases"]) <= wanted.keep:
        return Outcome(wanted=wanted, before=before, after=before)
    try:
        with store.locked():
            return _carry_out(wanted, store, delivered, host)
    except OSError as error:
        raise os_error(error, f"Installing {wanted.version}", wanted.root) from error


def _carry_out(wanted: Wanted, store: Store, delivered: Path | None, host: Host) -> Outcome:
    store.sweep()
    # Another run may have been at work until the lock was ours.
    present = _present(wanted)
    before = store.state()
    said = None if present else _install(wanted, store, delivered, host)
    for name, version in _links_to_change(wanted, before).items():
        store.point(name, version)
    removed, unsure = _superfluous(wanted, store, host, set(store.state()["links"].values()), {})
    for version in removed:
        store.remove(version)
    after = store.state()
    return Outcome(
        wanted=wanted, installed=not present, before=before, after=after, removed=removed, unsure=unsure, said=said
    )


def _foresee(wanted: Wanted, store: Store, host: Host, before: dict[str, Any], *, installs: bool) -> Outcome:
    links = {**before["links"], **wanted.links}
    links = {name: version for name, version in sorted(links.items()) if version is not None}
    new = {wanted.version: host.now()} if installs else {}
    removed, unsure = _superfluous(wanted, store, host, set(links.values()), new)
    releases = sorted(({*before["releases"], wanted.version}) - set(removed))
    return Outcome(
        wanted=wanted,
        installed=installs,
        before=before,
        after={"releases": releases, "links": links},
        removed=removed,
        unsure=unsure,
    )


def _superfluous(
    wanted: Wanted, store: Store, host: Host, linked: set[str], new: dict[str, float]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    installed = {**{name: manifest.installed for name, manifest in store.installed().items()}, **new}
    candidates = retention.prunable(installed, wanted.keep, {wanted.version, *linked})
    if not candidates:
        return (), ()
    use = retention.in_use(wanted.root, installed, host.proc)
    if use.unsure:
        return (), use.unsure
    return tuple(version for version in candidates if version not in use.versions), ()


def _present(wanted: Wanted) -> bool:
    if not wanted.path.exists() and not wanted.path.is_symlink():
        return False
    manifest = Manifest.read(wanted.path)
    if manifest is None:
        raise ReleaseError(
            f"{wanted.path} exists without {MANIFEST}: it was not made by this collection. Move it away, run again."
        )
    other = f"give this one another version name (as {wanted.version}+2), or remove {wanted.path} if nothing uses it"
    if manifest.checksum != wanted.checksum:
        raise ReleaseError(
            f"{wanted.path} was installed from another file ({manifest.checksum}; asked for is {wanted.checksum}). "
            f"A release is never changed: if the checksum is right, {other}."
        )
    if (manifest.executable, manifest.member) != (wanted.executable, wanted.member):
        raise ReleaseError(
            f"{wanted.path} was installed with executable {manifest.executable!r} and member "
            f"{manifest.member!r}; asked for are {wanted.executable!r} and {wanted.member!r}. "
            f"A release is never changed: {other}."
        )
    program = wanted.path / wanted.executable
    try:
        status = program.stat()
        # Size and time first: hashing 120 MB on every run is what a run that changes nothing cannot afford.
        same = (status.st_size, status.st_mtime_ns) == (manifest.size, manifest.mtime_ns)
        whole = same or fetch.sha256_of(program) == manifest.sha256
    except OSError:
        whole = False
    if not whole:
        raise ReleaseError(
            f"{program} is gone or was changed since it was installed. Remove {wanted.path}, then run again "
            "to install it anew."
        )
    return True


def _links_to_change(wanted: Wanted, before: dict[str, Any]) -> dict[str, str | None]:
    current: dict[str, str] = before["links"]
    return {name: version for name, version in wanted.links.items() if current.get(name) != version}


def _check_links(wanted: Wanted, store: Store, installed: dict[str, Manifest]) -> None:
    for name, version in wanted.links.items():
        store.check_link(name)
        if version is not None and version != wanted.version and version not in installed:
            raise ReleaseError(
                f"links.{name} is {version}, which is not installed below {wanted.root}. "
                f"Installed: {sentence(sorted(installed))}."
            )


def _install(wanted: Wanted, store: Store, delivered: Path | None, host: Host) -> str | None:
    with store.staging() as staging:
        content = staging / "content"
        content.mkdir()
        content.chmod(0o755)
        archive = _source(wanted, delivered, staging, host)
        kind = archive_kind(archive)
        program = content / wanted.executable
        if kind is None:
            if wanted.member is not None:
                raise ReleaseError(f"member is {wanted.member!r}, but {wanted.source} is no archive: leave member out.")
            program.parent.mkdir(parents=True, exist_ok=True)
            archive.rename(program)
        else:
            unpack(archive, kind, content, member=wanted.member, executable=wanted.executable, shown=wanted.source)
        _check_program(program, content, wanted)
        said = None
        if wanted.version_command:
            said = check_version(
                program,
                command=wanted.version_command,
                pattern=wanted.version_pattern,
                version=wanted.version,
                timeout=wanted.version_timeout,
                user=host.user,
            )
        _sign(wanted, content, program, host)
        settle(content)
        content.rename(wanted.path)
        sync_folder(wanted.releases)
        return said


def _source(wanted: Wanted, delivered: Path | None, staging: Path, host: Host) -> Path:
    target = staging / "source"
    if wanted.remote:
        fetch.download(wanted.source, target, wanted.checksum, context=host.tls, sleep=host.sleep)
        return target
    source = delivered or Path(wanted.source)
    if not source.is_file():
        raise ReleaseError(f"source {source} is no file on this host.")
    fetch.copy(source, target, wanted.checksum)
    return target


def _check_file(source: Path, wanted: Wanted) -> None:
    if not source.is_file():
        raise ReleaseError(f"source {source} is no file on this host.")
    fetch.check(fetch.sha256_of(source), wanted.checksum, str(source))


def _check_program(program: Path, content: Path, wanted: Wanted) -> None:
    if not program.is_file():
        names = sorted(str(path.relative_to(content)) for path in content.rglob("*") if path.is_file())[:8]
        raise ReleaseError(
            f"{wanted.source} has no file {wanted.executable!r}. It has: {sentence(names)}. Set executable or member."
        )
    program.chmod(wanted.mode)
    for folder in program.parents:
        if folder == content:
            break
        folder.chmod(0o755)


def _sign(wanted: Wanted, content: Path, program: Path, host: Host) -> None:
    status = program.stat()
    manifest = Manifest(
        version=wanted.version,
        checksum=wanted.checksum,
        executable=wanted.executable,
        member=wanted.member,
        sha256=fetch.sha256_of(program),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        installed=host.now(),
    )
    path = content / MANIFEST
    path.write_text(manifest.as_json(), encoding="utf-8")
    path.chmod(0o644)
