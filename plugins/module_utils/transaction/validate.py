# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The candidate seen in place by its validators, and by nobody else: a private mount namespace."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult, Runner
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import Difference, TransactionError

# Validators leave traces there (nginx -t makes its pid file and its logs): they are shadowed as well.
SCRATCHED = ("/run", "/var/log")

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_PDEATHSIG = 1


class Sandbox(Protocol):
    def validate(
        self, difference: Difference, commands: Sequence[Sequence[str]], timeout: float
    ) -> list[CommandResult]:
        """Run the commands where the candidate is seen in place, up to the first one that fails."""


class NamespaceSandbox:
    """Overlays with their upper side in memory, over every folder that the candidate touches. Needs CAP_SYS_ADMIN."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def validate(
        self, difference: Difference, commands: Sequence[Sequence[str]], timeout: float
    ) -> list[CommandResult]:
        scratch = _mount_point()
        try:
            answer = self._in_child(str(scratch), difference, commands, timeout)
        finally:
            scratch.rmdir()
        if isinstance(answer, str):
            raise TransactionError(
                f"The candidate could not be set up for its validators: {answer}; nothing was changed. "
                "A private mount namespace is needed: root with CAP_SYS_ADMIN, and overlay file systems",
                phase="validate",
            )
        return answer

    def _in_child(
        self, scratch: str, difference: Difference, commands: Sequence[Sequence[str]], timeout: float
    ) -> list[CommandResult] | str:
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                answer = self._child(parent, scratch, difference, commands, timeout)
                with os.fdopen(writer, "wb") as pipe:
                    pipe.write(json.dumps(answer).encode())
            finally:
                os._exit(0)
        os.close(writer)
        try:
            with os.fdopen(reader, "rb") as pipe:
                said = pipe.read()
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            os.waitpid(child, 0)
        if not said:
            return "the process that runs them was ended"
        data = json.loads(said)
        if isinstance(data, str):
            return data
        return [CommandResult(**{**item, "argv": tuple(item["argv"])}) for item in data]

    def _child(
        self,
        parent: int,
        scratch: str,
        difference: Difference,
        commands: Sequence[Sequence[str]],
        timeout: float,
    ) -> list[dict[str, object]] | str:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        try:
            # A run that is killed must not leave its validators behind.
            _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
            if os.getppid() != parent:
                return "the run was ended"
            _check(_libc.unshare(_CLONE_NEWNS), "unshare")
            _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
            _mount("tmpfs", scratch, "tmpfs", 0, "mode=0700")
            # By its descriptor: the overlay over /run hides its path.
            base = os.open(scratch, os.O_PATH | os.O_DIRECTORY)
            for index, folder in enumerate(shadowed(difference)):
                shadow(folder, Path(f"/proc/self/fd/{base}/{index}"), own=scratch)
            os.close(base)
            place(difference)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            return f"{error.strerror}{where}"
        results = []
        for argv in commands:
            result = self.runner.run(argv, timeout=timeout)
            results.append(asdict(result))
            if not result.ok:
                break
        return results


def _mount_point() -> Path:
    """An empty folder to mount on, named after this process; those of runs that were killed go."""
    for left in Path("/run").glob("selfhost-validate-*"):
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            left.rmdir()
    folder = Path(f"/run/selfhost-validate-{os.getpid()}")
    folder.mkdir(mode=0o700)
    return folder


def shadowed(difference: Difference) -> list[str]:
    """The folders to lay something over: the deepest existing one of each path, none below another."""
    wanted = {os.path.realpath(item) for item in SCRATCHED if Path(item).is_dir()}
    for path in [*difference.paths, *(item.path for item in difference.directories)]:
        folder = Path(path).parent
        while not folder.is_dir():
            folder = folder.parent
        wanted.add(os.path.realpath(folder))
    kept: list[str] = []
    for folder_name in sorted(wanted):
        if not any(folder_name.startswith(f"{other.rstrip('/')}/") for other in kept):
            kept.append(folder_name)
    return kept


def shadow(folder: str, scratch: Path, *, own: str) -> None:
    """Lay an overlay over a folder and put what was mounted below it (a container's /etc/hosts) back on top."""
    upper, work, kept = scratch / "upper", scratch / "work", scratch / "kept"
    for path in (upper, work, kept):
        path.mkdir(parents=True)
    facts = Path(folder).stat()
    upper.chmod(facts.st_mode & 0o7777)
    os.chown(upper, facts.st_uid, facts.st_gid)
    held = []
    for index, point in enumerate(_mounts_below(folder, own)):
        place_holder = kept / str(index)
        if Path(point).is_dir():
            place_holder.mkdir()
        else:
            place_holder.touch()
        _mount(point, str(place_holder), "", _MS_BIND | _MS_REC)
        held.append((place_holder, point))
    _mount("overlay", folder, "overlay", 0, f"lowerdir={_escaped(folder)},upperdir={upper},workdir={work}")
    for place_holder, point in held:
        _mount(str(place_holder), point, "", _MS_BIND | _MS_REC)


def place(difference: Difference) -> None:
    """Write the candidate; whoever calls this is alone in seeing it."""
    for folder in difference.directories:
        if folder.after:
            Path(folder.path).mkdir(parents=True, exist_ok=True)
            os.chown(folder.path, folder.uid, folder.gid)
            Path(folder.path).chmod(folder.after.mode)
    for item in difference.files:
        path = Path(item.path)
        path.unlink(missing_ok=True)
        if item.after:
            # A parent is missing in check mode only, where that has been reported.
            path.parent.mkdir(parents=True, exist_ok=True)
            if item.after.target:
                path.symlink_to(item.after.target)
                continue
            path.touch(mode=0o600)
            path.write_bytes(item.after.content)
            os.chown(path, item.uid, item.gid)
            path.chmod(item.after.mode)
    for folder in difference.directories:
        if not folder.after and Path(folder.path).is_dir():
            shutil.rmtree(folder.path)


def _mounts_below(folder: str, scratch: str) -> list[str]:
    """Mount points below a folder, without those below another mount point of the list, and without our own."""
    points: list[str] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        raw = line.split(" ")[4]
        points.append(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), raw))
    kept: list[str] = []
    for point in sorted(set(points)):
        inside = point.startswith(f"{folder.rstrip('/')}/") and point != scratch
        if inside and not any(point.startswith(f"{other}/") for other in kept):
            kept.append(point)
    return kept


def _escaped(path: str) -> str:
    return re.sub(r"([\\,:])", r"\\\1", path)


_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {kind or source} on {target}")
