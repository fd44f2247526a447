# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run this is, on which controller; and whether another run of the same controller still lives."""

from __future__ import annotations

import hashlib
import hmac
import multiprocessing
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# The kernel's number of the namespace that is there from boot on: who is in it is in no container.
OUTERMOST = "pid:[4026531836]"
ZOMBIE = ("Z", "X")


@dataclass(frozen=True, kw_only=True)
class Controller:
    """A run of Ansible. What its system does not tell is empty, and then its lock is taken over by name alone."""

    machine: str
    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def here(cls, *, proc: Path = Path("/proc"), etc: Path = Path("/etc"), pid: int | None = None) -> Controller:
        pid = pid or controlling_process()
        try:
            started = process(proc, pid)[1]
            namespace = str((proc / "self/ns/pid").readlink())
        except OSError:
            started = namespace = ""
        identifier = _line(etc / "machine-id")
        # machine-id(5) wants the number itself to stay on its machine.
        machine = (
            hmac.new(identifier.encode(), b"selfhost.fleet", hashlib.sha256).hexdigest()[:32] if identifier else ""
        )
        return cls(
            machine=machine,
            host=os.uname().nodename,
            boot=_line(proc / "sys/kernel/random/boot_id"),
            namespace=namespace,
            pid=pid,
            started=started,
        )

    def as_option(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def token(self) -> str:
        """The same on all hosts and in all tasks of a run, and in no other run."""
        words = [str(value) for value in asdict(self).values()]
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]

    def knows_dead(
        self,
        other: Mapping[str, Any],
        since: str,
        *,
        proc: Path = Path("/proc"),
        signal: Callable[[int, int], None] = os.kill,
    ) -> bool:
        """Whether the run that has held a lock `since` was one of this machine, and lives no more. In doubt it lives."""
        try:
            return self._knows_dead(other, since, proc, signal)
        except (KeyError, TypeError, ValueError):
            return False  # somebody else's idea of a lock

    def _knows_dead(self, other: Mapping[str, Any], since: str, proc: Path, signal: Callable[[int, int], None]) -> bool:
        known = all((self.boot, self.namespace, other["boot"], other["namespace"], other["started"]))
        if not known or (other["machine"], other["host"]) != (self.machine, self.host):
            return False
        if other["boot"] != self.boot:
            # Containers are started from one image with one machine-id, or none, on several machines.
            outermost = self.machine and {self.namespace, other["namespace"]} == {OUTERMOST}
            # A lock younger than this machine's boot is of another machine, which was cloned from the same disk.
            return bool(outermost) and datetime.fromisoformat(since) < booted(proc)
        return other["namespace"] == self.namespace and not lives(
            int(other["pid"]), str(other["started"]), proc=proc, signal=signal
        )


def operator() -> str:
    """Who has started this run, and where; behind sudo it is who called that."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    if os.getuid() == 0:
        user = os.environ.get("SUDO_USER") or user
    return f"{user}@{os.uname().nodename}"


def controlling_process() -> int:
    """The process that lives as long as the run does: the one that forked the worker in which an action plugin runs."""
    parent = multiprocessing.parent_process()
    return parent.pid if parent and parent.pid else os.getpid()


def process(proc: Path, pid: int) -> tuple[str, str]:
    """State of a process, and when it started, in ticks since the boot. Its name may hold spaces and brackets."""
    fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], fields[19]


def lives(pid: int, started: str, *, proc: Path, signal: Callable[[int, int], None]) -> bool:
    try:
        state, began = process(proc, pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # With hidepid nobody sees the processes of others, but a signal still tells those that are there.
        try:
            signal(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return began == started and state not in ZOMBIE


def booted(proc: Path) -> datetime:
    lines = (proc / "stat").read_text().splitlines()
    seconds = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return datetime.fromtimestamp(seconds, UTC)


def _line(path: Path) -> str:
    """`uninitialized` is what systemd leaves where an image has not been started yet."""
    try:
        text = path.read_text().strip()
    except OSError:
        return ""
    return "" if text == "uninitialized" else text
