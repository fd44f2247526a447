# GNU General Public License v3.0+ (see LICENSE)
"""A rehearsal: a new release runs against a copy of the database, shut off from everything else; then the old one on what that has left.

The units of both slots run with their own environments in the network of the copy (see database.py), which is at the address and port
where they find their database: for them nothing is different, and nothing that they do can leave that network.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .database import POSTGRES, Copy
from .lock import RehearsalError, wanted_no_more
from .place import PREFIX, Place

CRASHES = 3  # restarts by systemd that are a pattern
ASK = """
import http.client, socket, sys, urllib.parse
parts = urllib.parse.urlsplit(sys.argv[1])
try:
    if parts.scheme == "http":
        asked = http.client.HTTPConnection(parts.hostname, parts.port, timeout=3)
        asked.request("GET", parts.path or "/")
        print(asked.getresponse().status)
    else:
        socket.create_connection((parts.hostname, parts.port), timeout=3).close()
        print("200")
except (OSError, http.client.HTTPException) as error:
    print(error)
"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A component: the units of its two slots, how each is asked, and the folders that it may write to."""

    name: str
    new: str
    old: str
    new_probe: dict[str, Any]
    old_probe: dict[str, Any]
    state: Sequence[str] = ()


@dataclass(kw_only=True)
class Act:
    """How a release did. `words` are for the operator."""

    ok: bool
    seconds: float
    words: str
    journal: list[str] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        return {"ok": self.ok, "seconds": round(self.seconds, 1), "words": self.words, "journal": self.journal}


@dataclass(kw_only=True)
class Outcome:
    copied: str  # schema or full
    size: int  # bytes of the real database
    new: Act
    old: Act | None  # None where the new one did not start: what it has left is no matter then
    migrates: bool  # whether the new one has changed the schema, or what keeps track of migrations
    locks: dict[str, float] = field(default_factory=dict)  # seconds for which a table was shut to readers, by its name


class Stage:
    """Where releases act: beside the copy on its own host, or behind a door that leads to it (see door.py)."""

    def __init__(
        self,
        place: Place,
        *,
        network: str = POSTGRES,
        shut: Callable[[], Sequence[str]] = lambda: (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        forsaken: Callable[[], bool] = wanted_no_more,
    ) -> None:
        """`network`: a unit that has it; `shut`: the tables that nobody can read in this moment."""
        self.place, self.network, self.shut = place, network, shut
        self.clock, self.sleep, self.forsaken = clock, sleep, forsaken

    def act(self, parts: Sequence[Part], who: str) -> tuple[Act, dict[str, float]]:
        """How it went, and for how many seconds which tables could not be read."""
        begin, locks = self.clock(), dict[str, float]()
        names = {part.name: f"{PREFIX}-{who}-{part.name}.service" for part in parts}
        for part in parts:
            self._beside_the_copy(part, getattr(part, who), names[part.name])
        self.place.must(["systemctl", "daemon-reload"])
        self._be_at(sorted({self.address(getattr(part, f"{who}_probe")["url"]) for part in parts}))
        for name in names.values():
            self.place.runner.run(["systemctl", "start", "--no-block", name], timeout=30)
        trouble = self._until_healthy(parts, who, names, begin, locks)
        seconds = self.clock() - begin
        journal = [line for name in names.values() for line in self.place.said(name, restarted=bool(trouble))]
        for name in names.values():
            # Some hang in their stop, and what they leave is a copy's.
            self.place.runner.run(["systemctl", "kill", "--signal=SIGKILL", name], timeout=30)
            self.place.runner.run(["systemctl", "stop", name], timeout=60)
        # One that fails on a full disk has not shown anything.
        if trouble and self.place.is_full("\n".join(journal)):
            raise RehearsalError(trouble)
        return Act(ok=not trouble, seconds=seconds, words=trouble or "healthy", journal=journal), locks

    def _beside_the_copy(self, part: Part, unit: str, name: str) -> None:
        """The slot's own unit under another name, in the copy's network, with folders of its own in place of the real ones."""
        self.place.unit(name, Path(f"/etc/systemd/system/{unit}").read_text())
        binds = []
        outermost = [path for path in part.state if not any(path.startswith(f"{other}/") for other in part.state)]
        for path in part.state:
            own = self.place.folder / "state" / path.strip("/")
            self.place.must(["install", "-d", str(own)])
            self.place.must(["chown", f"--reference={path}", str(own)])
            self.place.must(["chmod", f"--reference={path}", str(own)])
            binds += [f"BindPaths={own}:{path}\n"] if path in outermost else []
        self.place.unit(
            f"{name}.d/rehearsal.conf",
            f"[Unit]\nJoinsNamespaceOf={self.network}\n\n[Service]\nPrivateNetwork=yes\nRestart=always\nRestartSec=1\n{''.join(binds)}",
        )

    @staticmethod
    def address(url: str) -> str:
        """Where a probe asks, which is where the program listens."""
        return str(urlsplit(url).hostname)

    def _be_at(self, addresses: Sequence[str]) -> None:
        """What edges on other hosts reach listens at the host's own address, which that network does not have."""
        for address in addresses:
            if not ipaddress.ip_address(address).is_loopback:
                self.place.must([*self._within(), "ip", "address", "replace", address, "dev", "lo"])

    def _within(self) -> list[str]:
        show = ["systemctl", "show", "--property=MainPID", "--value", self.network]
        pid = self.place.runner.run(show, timeout=10).stdout.strip()
        return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]

    def _until_healthy(
        self, parts: Sequence[Part], who: str, names: dict[str, str], begin: float, locks: dict[str, float]
    ) -> str:
        """Empty once all have answered rightly; else why they never will."""
        waiting = {part.name: part for part in parts}
        looked = self.clock()
        while waiting:
            if self.forsaken():
                raise RehearsalError("nobody waits for it any more")
            for name, part in list(waiting.items()):
                probe: dict[str, Any] = getattr(part, f"{who}_probe")
                crashes = self._crashes(names[name])
                if crashes >= CRASHES:
                    return f"{name} ended {crashes} times"
                answer = self._ask(probe["url"])
                if answer.isdigit() and int(answer) in (probe.get("status") or [200]):
                    del waiting[name]
                elif self.clock() - begin > float(probe["start_timeout"]):
                    return (
                        f"{name} was not healthy within {probe['start_timeout']} s; its last answer: {answer or 'none'}"
                    )
            now = self.clock()
            for table in self.shut():
                locks[table] = round(locks.get(table, 0.0) + now - looked, 1)
            looked = now
            self.sleep(0.3)
        return ""

    def _crashes(self, unit: str) -> int:
        shown = self.place.runner.run(["systemctl", "show", "--property=NRestarts", "--value", unit], timeout=10)
        return int(shown.stdout.strip() or 0)

    def _ask(self, url: str) -> str:
        return self.place.runner.run([*self._within(), "python3", "-c", ASK, url], timeout=15).stdout.strip()


def rehearse(stage: Stage, copy: Copy, parts: Sequence[Part]) -> Outcome:
    """On the host of the database, with a copy that has been decided on. Nothing of it is left."""
    try:
        with copy.room():
            copy.make()
            before = copy.fingerprint()
            new, locks = stage.act(parts, "new")
            migrates = copy.fingerprint() != before
            old = stage.act(parts, "old")[0] if new.ok else None
    finally:
        stage.place.clear()
    return Outcome(copied=copy.copied, size=copy.size, new=new, old=old, migrates=migrates, locks=locks)


def rehearse_away(stage: Stage, parts: Sequence[Part]) -> tuple[Act, Act | None]:
    """On another host than that of the database, behind an open door. Nothing of it is left."""
    try:
        new = stage.act(parts, "new")[0]
        return new, stage.act(parts, "old")[0] if new.ok else None
    finally:
        stage.place.clear()
