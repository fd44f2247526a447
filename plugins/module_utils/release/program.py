# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the program run here, and is it the version that was asked for? If not, why, in the program's own words."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import pwd
import re
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .model import ReleaseError

UNPRIVILEGED = "nobody"
SHOWN = 1000  # characters of what a program said
MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64", 22: "s390x"}
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
}


def check_version(
    program: Path, *, command: Sequence[str], pattern: str, version: str, timeout: float, user: str = UNPRIVILEGED
) -> str:
    """What the program said."""
    argv = [item.replace("{executable}", str(program)).replace("{version}", version) for item in command]
    shown = " ".join(argv)
    try:
        status, said = _run(argv, timeout, user)
    except OSError as error:
        raise ReleaseError(f"{shown} cannot be run on this host: {_why_not(program, error)}") from error
    excerpt = said if len(said) <= SHOWN else said[:SHOWN] + "..."
    if status is None:
        raise ReleaseError(
            f"{shown} did not end within {timeout:g} s, so it was not accepted. Does that command print the version? "
            f"It said: {excerpt or 'nothing'}"
        )
    if status != 0:
        ended = f"killed by {_signal(-status)}" if status < 0 else f"exit status {status}"
        raise ReleaseError(
            f"{shown} failed on this host ({ended}): {excerpt or 'without a word'}{_remedy(program, status, said)}"
        )
    if not found_in(said, pattern, version):
        raise ReleaseError(
            f"{shown} does not say that it is {version}: {pattern!r} is not found in its output. It said: "
            f"{excerpt or 'nothing'}. The source is another version, or version_pattern does not fit."
        )
    return excerpt


def found_in(said: str, pattern: str, version: str) -> bool:
    """The pattern as plain text or as a regular expression; 1.2 is not found in 1.2.3, 11.2 or 1.20."""
    exact = rf"(?<![0-9])(?<![0-9]\.){re.escape(version)}(?![0-9]|\.[0-9])"
    plain = exact.join(re.escape(part) for part in pattern.split("{version}"))
    if re.search(plain, said):
        return True
    try:
        return re.search(exact.join(pattern.split("{version}")), said, re.MULTILINE) is not None
    except re.error:
        return False


def _run(argv: Sequence[str], timeout: float, user: str) -> tuple[int | None, str]:
    identity: dict[str, object] = {}
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam(user)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        except KeyError:
            identity = {"user": 65534, "group": 65534, "extra_groups": []}
    # To a file: a program that never stops printing must not fill this one's memory.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function  # run_command has no time-out
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            **identity,  # type: ignore[call-overload]
        )
        status: int | None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # Also whatever it has left running.
            _end(process)
        output.seek(0)
        return status, output.read(1 << 16).decode("utf-8", "replace").strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _remedy(program: Path, status: int, said: str) -> str:
    if re.search(r"GLIBC(XX)?_[0-9.]+['\u2019]? not found|GLIBC(XX)?_\S+ not found", said):
        return (
            f"\nIt was built for another C library: this host has {_libc()}. Take the build for this distribution, or "
            "one that is linked statically (musl), or a newer distribution."
        )
    library = re.search(r"error while loading shared libraries: ([^:\s]+): cannot open", said)
    if library:
        return f"\nThe library {library[1]} is missing: name the package that has it in the service's packages."
    if status == -signal.SIGILL:
        return (
            "\nIt uses instructions that this host's processor lacks: take the build for older ones (often 'baseline')."
        )
    return _why_not_elf(program, prefix="\n")


def _why_not(program: Path, error: OSError) -> str:
    elf = _why_not_elf(program)
    if elf:
        return elf
    if error.errno == errno.ENOEXEC:
        return (
            "it is no program (exec format error): neither ELF nor a script beginning with #!. If the source is an "
            "archive, name the program in it with `member`."
        )
    if error.errno == errno.EACCES:
        if os.statvfs(program.parent).f_flag & os.ST_NOEXEC:
            return f"the file system of {program.parent} is mounted noexec. Choose another root, or mount it with exec."
        return f"permission denied to the user {UNPRIVILEGED}: can every user enter each folder above {program}?"
    if error.errno == errno.ENOENT:
        return _missing(program, error)
    return f"{os.strerror(error.errno).lower() if error.errno else error}."


def _missing(program: Path, error: OSError) -> str:
    with program.open("rb") as stream:
        first = stream.readline(256)
    if first.startswith(b"#!"):
        needed = os.fsdecode(first[2:]).split()
        if needed and not Path(needed[0]).exists():
            return f"it is a script for {needed[0]}, which is not on this host: add its package to the service's."
    return f"{error.filename or 'a file'} was not found."


def _why_not_elf(program: Path, prefix: str = "") -> str:
    machine, loader = elf_header(program)
    if machine is None:
        return ""
    here = platform.machine()
    if machine != here and not (machine == "i386" and here == "x86_64"):
        return (
            f"{prefix}it is built for the architecture {machine}, and this host is {here}. Take the build for {here}."
        )
    if loader and not Path(loader).exists():
        which = "musl" if "musl" in loader else "another"
        return (
            f"{prefix}it was built for another C library ({which}): its loader {loader} is not on this host, which "
            f"has {_libc()}. Take the build for this distribution, or one that is linked statically."
        )
    return ""


def elf_header(program: Path) -> tuple[str | None, str | None]:
    """Architecture and loader of an ELF program, (None, None) of anything else. elf(5)."""
    try:
        with program.open("rb") as stream:
            head = stream.read(64)
            if len(head) < 52 or head[:4] != b"\x7fELF":
                return None, None
            order, wide = "<" if head[5] == 1 else ">", head[4] == 2
            number = struct.unpack_from(order + "H", head, 18)[0]
            machine = MACHINES.get(number, f"number {number}")
            if machine == "ppc64" and order == "<":
                machine = "ppc64le"
            offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
            size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
            for index in range(min(count, 64)):
                stream.seek(offset + index * size)
                entry = stream.read(size)
                if struct.unpack_from(order + "I", entry)[0] == 3:  # PT_INTERP
                    where, length = struct.unpack_from(order + ("Q24xQ" if wide else "I8xI"), entry, 8 if wide else 4)
                    stream.seek(where)
                    return machine, os.fsdecode(stream.read(min(length, 4096)).rstrip(b"\0"))
            return machine, None
    except (OSError, struct.error):
        return None, None


def _libc() -> str:
    name, number = platform.libc_ver(shutil.which("true", path=ENVIRONMENT["PATH"]) or "/bin/true")
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or f"{name} {number}".strip() or "an unknown one"
    except (ValueError, OSError):
        return f"{name} {number}".strip() or "an unknown one"
