# GNU General Public License v3.0+ (see LICENSE)
"""Which units run what an upgrade has replaced, or would: the kernel marks a program or library that is mapped and no longer on the disk.

What needrestart does, without reading the scripts that interpreters run: looking into those has been a way to become root
(CVE-2024-48990). A library that a program reads as a file, as Python does its modules, is not seen.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# 7f3c-7f3d r-xp 00000000 fe:01 1234   /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)
MAPPED = re.compile(r"^\S+ \S{2}x\S \S+ \S+ \d+ +(?P<file>/(?:usr|lib\w*|bin|sbin)/.*?)(?P<gone> \(deleted\))?$", re.M)
GROUP = re.compile(r"^(?:0:|\d+:name=systemd):(?P<path>.*)$", re.M)
MANAGER = "init.scope"
PROPERTIES = ("Id", "ActiveState", "KillMode", "MainPID", "Transient", "RefuseManualStop", "InvocationID")

# To restart these ends the sessions of people, the network, or what runs in containers of other tools.
LEFT = {
    "dbus*": "every program that is connected to it would lose it",
    "systemd-logind.service": "it knows the sessions of people",
    "user@*": "the session of a person",
    "getty@*": "the session of a person",
    "serial-getty@*": "the session of a person",
    "console-getty.service": "the session of a person",
    "display-manager.service": "the session of a person",
    "networking.service": "the network would go with it",
    "NetworkManager.service": "the network would go with it",
    "docker*": "its containers would end",
    "containerd*": "its containers would end",
    "libvirtd*": "its machines might end",
    "lxc*": "its containers would end",
    "apt-daily*": "it works, and ends by itself",
    "unattended-upgrades.service": "it works, and ends by itself",
}
# nginx takes its new program while the former one answers what it has begun, WebSockets for as long as they last. By systemctl restart
# nobody listens until the last request has ended. Debian's package does the same when it is upgraded.
GRACEFUL = {"nginx.service": "/etc/init.d/nginx"}
# The database before what uses it, the way in last.
ORDER = ("postgresql@*", "pgbouncer*", "*", "nginx.service", "ssh*")


@dataclass(frozen=True)
class Process:
    pid: int
    unit: str
    files: frozenset[str]


@dataclass
class Stale:
    """Units with the files that they still use: those to restart, in order, and those to leave, with the reason."""

    restart: dict[str, list[str]] = field(default_factory=dict)
    leave: dict[str, str] = field(default_factory=dict)
    manager: list[str] = field(default_factory=list)  # process 1, which starts itself anew without anybody noticing


def processes(proc: Path, replaced: Collection[str] = ()) -> list[Process]:
    """Every process that uses a file of a package that is no longer there, or that is among those to be replaced."""
    found = []
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            files = _used((folder / "maps").read_text(errors="replace"), replaced)
            unit = unit_of((folder / "cgroup").read_text()) if files else ""
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended meanwhile, or is the kernel's own
        if files:
            found.append(Process(int(folder.name), unit, files))
    return found


def _used(maps: str, replaced: Collection[str]) -> frozenset[str]:
    mapped = MAPPED.finditer(maps)
    return frozenset(match["file"] for match in mapped if match["gone"] or merged(match["file"]) in replaced)


def files_of(packages: Iterable[str], dpkg: Path) -> set[str]:
    """The files that dpkg has of some packages; an upgrade replaces each of them, whether it has changed or not."""
    lists = [path for name in packages for path in (*dpkg.glob(f"{name}.list"), *dpkg.glob(f"{name}:*.list"))]
    return {merged(line) for path in lists for line in path.read_text().splitlines()}


def merged(path: str) -> str:
    """/lib, /bin and /sbin are links into /usr, and packages of Debian 12 still name those."""
    return path if path.startswith("/usr/") else f"/usr{path}"


def unit_of(groups: str) -> str:
    """The unit that a process belongs to, by its control group; empty where it is in none."""
    # Where both versions of control groups are mounted, only one of them has the units.
    parts = [part for match in GROUP.finditer(groups) for part in match["path"].split("/")]
    return next((part for part in parts if part.endswith((".service", ".scope"))), "")


def judge(found: Iterable[Process], states: Mapping[str, Mapping[str, str]]) -> Stale:
    """What is to be done about them; `states` has the PROPERTIES of each unit."""
    units: dict[str, set[str]] = {}
    stale = Stale()
    for process in found:
        if process.unit == MANAGER:
            stale.manager = sorted({*stale.manager, *process.files})
            continue
        state = states.get(process.unit, {})
        # What outlives a restart, as sessions do that of sshd, is no reason for one.
        survives = state.get("KillMode") in ("process", "none") or process.unit in GRACEFUL
        outlives = survives and state.get("MainPID") != str(process.pid)
        if process.unit.endswith(".service") and not outlives:
            units.setdefault(process.unit, set()).update(process.files)
    for name in sorted(units, key=lambda name: (_place(name), name)):
        reason = _reason(name, states.get(name, {}))
        if reason:
            stale.leave[name] = reason
        else:
            stale.restart[name] = sorted(units[name])
    return stale


def _reason(name: str, state: Mapping[str, str]) -> str:
    """Why a unit is left; empty where it is to be restarted."""
    for pattern, reason in LEFT.items():
        if fnmatch.fnmatchcase(name, pattern):
            return reason
    if state.get("ActiveState") != "active":
        return f"it is {state.get('ActiveState') or 'unknown to systemd'}, and starts with the new files when it starts"
    if state.get("Transient") == "yes" or state.get("RefuseManualStop") == "yes":
        return "it is not for anybody to restart"
    return ""


def _place(name: str) -> int:
    special = [number for number, pattern in enumerate(ORDER) if pattern != "*" and fnmatch.fnmatchcase(name, pattern)]
    return special[0] if special else ORDER.index("*")


def properties(text: str) -> dict[str, dict[str, str]]:
    """`systemctl show` of several units, by their names."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    return {block["Id"]: block for block in blocks if "Id" in block}


def show(units: Sequence[str]) -> list[str]:
    """The command whose output `properties` reads."""
    return ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *units]
