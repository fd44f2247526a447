# GNU General Public License v3.0+ (see LICENSE)
"""A rehearsal: a new release runs against a copy of the database, shut off from everything else; then the old one on what that has left.

The copy is a PostgreSQL of its own, in a network of its own, at the address and port where the service finds its database. The units
of both slots run beside it with their own environments: for them nothing is different, and nothing that they do can leave that network.
Roles, which a copy inside the real cluster would share with it, are copies too.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..commands import CommandResult, Runner
from ..storage import free
from ..unit_journal import unit_journal
from .rehearsal_lock import RehearsalError, wanted_no_more

FOLDER = Path("/var/lib/selfhost-rehearsal")
UNITS = Path("/run/systemd/system")
PREFIX = "selfhost-rehearsal"
POSTGRES = f"{PREFIX}-postgres.service"
CRASHES = 3  # restarts by systemd that are a pattern
JOURNAL_LINES = 12
SCANT = 1024 * 1024  # bytes; a disk with no more is full to PostgreSQL, which writes in steps
ROOM = 256 * 1024 * 1024  # bytes that stay free, and that an empty cluster takes
ATTRIBUTES = ("SUPERUSER", "CREATEDB", "CREATEROLE", "LOGIN", "REPLICATION", "BYPASSRLS")
# How programs call the tables that keep track of migrations.
TRACKING = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
AND tablename ~* '(migration|schema_version|schema_history|flyway|alembic_version|changelog|goose_db|knex_)'
"""
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


def _empty(folder: Path) -> None:
    """Take a folder away; what has a disk or a link of the operator's in its place stays, without anything in it."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if not folder.is_mount() and not folder.is_symlink():
        folder.rmdir()


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


def as_wanted(attributes: Mapping[str, Sequence[str]], extensions: Sequence[str]) -> list[str]:
    """Statements that give the copy what the real database gets before the new release starts on it."""

    def name(word: str) -> str:
        return '"' + word.replace('"', '""') + '"'

    roles = {
        role: " ".join(word if word in given else f"NO{word}" for word in ATTRIBUTES)
        for role, given in attributes.items()
    }
    return [
        *(f"ALTER ROLE {name(role)} {words}" for role, words in roles.items()),
        *(f"CREATE EXTENSION IF NOT EXISTS {name(extension)} CASCADE" for extension in extensions),
    ]


class Rehearsal:
    """One of a service on the host of its database. Whatever happens, nothing of it is left."""

    def __init__(
        self,
        *,
        database: str,
        version: int,
        port: int,
        runner: Runner,
        timeout: float,
        attributes: Mapping[str, Sequence[str]] | None = None,
        extensions: Sequence[str] = (),
        folder: Path = FOLDER,
        units: Path = UNITS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        forsaken: Callable[[], bool] = wanted_no_more,
    ) -> None:
        self.forsaken = forsaken
        self.database, self.version, self.port, self.timeout = database, version, port, timeout
        self.wanted = as_wanted(attributes or {}, extensions)
        self.runner, self.folder, self.units = runner, folder, units
        self.clock, self.sleep = clock, sleep
        self.programs = f"/usr/lib/postgresql/{version}/bin"

    def run(self, parts: Sequence[Part], *, copy: str, full_up_to: int) -> Outcome:
        """`copy` is schema, full, or auto: full for a database of up to so many bytes."""
        self.clear()
        size = int(self._live("SELECT pg_database_size(current_database())"))
        full = copy == "full" or (copy == "auto" and size <= full_up_to)
        self._check_room(size if full else 0)
        with self._copy(full=full):
            locks: dict[str, float] = {}
            before = self._fingerprint()
            new = self._act(parts, "new", locks)
            migrates = self._fingerprint() != before
            self._see_that_there_was_room(new)
            old = self._act(parts, "old", {}) if new.ok else None
            self._see_that_there_was_room(old)
        return Outcome(copied="full" if full else "schema", size=size, new=new, old=old, migrates=migrates, locks=locks)

    # The copy

    def _check_room(self, size: int) -> None:
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        there, wanted = shutil.disk_usage(self.folder).free, 2 * size + ROOM
        if there < wanted:
            raise RehearsalError(
                f"{self.folder} has {there // 2**20} MiB free, and a copy of {self.database} wants {wanted // 2**20} MiB. "
                f"Make room there, or mount another disk there{self._smaller(size > 0)}"
            )

    def _is_full(self, words: str) -> bool:
        """Some programs take away what they had written before they end, and others do not say why they end."""
        return "No space left on device" in words or shutil.disk_usage(self.folder).free <= SCANT

    def _see_that_there_was_room(self, act: Act | None) -> None:
        """A release that fails on a full disk has not shown anything."""
        if act and not act.ok and self._is_full("\n".join(act.journal)):
            raise RehearsalError(act.words)

    @staticmethod
    def _smaller(full: bool) -> str:
        return "; or rehearse with the schema alone (rollout.rehearsal: schema)" if full else ""

    @contextmanager
    def _copy(self, *, full: bool) -> Iterator[None]:
        try:
            self._make_copy(full=full)
            yield
        except RehearsalError as error:
            if not self._is_full(str(error)):
                raise
            raise RehearsalError(
                f"{error}\nThe disk is full: the copy did not fit in {self.folder} ({free(self.folder)} by now), and is taken away. "
                f"Make room there, or mount another disk there{self._smaller(full)}; then run again"
            ) from None
        finally:
            self.clear()

    def _make_copy(self, *, full: bool) -> None:
        data = self.folder / "data"
        self._must(["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "0700", str(data)])
        self._must(
            self._as_postgres(f"{self.programs}/initdb", "--no-sync", "--auth-host=scram-sha-256", "-D", str(data))
        )
        self._unit(POSTGRES, self._postgres_unit(data))
        self._must(["systemctl", "daemon-reload"])
        self._must(["systemctl", "start", POSTGRES])
        self._wait_for_postgres(data)
        # Roles first, and without a stop: those of the new cluster itself are there already.
        self._pipe(["pg_dumpall", "--roles-only"], data, "postgres", stop=False)
        what = [] if full else ["--schema-only"]
        self._pipe(["pg_dump", "--create", *what, self.database], data, "postgres")
        if not full:
            self._pipe_tables(data)
        for statement in self.wanted:
            self._must(self._on_copy(statement))

    def _postgres_unit(self, data: Path) -> str:
        settings = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={data}"
        return (
            "[Unit]\nDescription=A copy of the database that a release is rehearsed with\n\n"
            # Who joins its network joins its /tmp, too; of a unit without one of its own that is a folder that nobody can write to.
            "[Service]\nUser=postgres\nPrivateNetwork=yes\nPrivateTmp=yes\n"
            "KillSignal=SIGINT\nTimeoutStopSec=20\nNoNewPrivileges=yes\n"
            f"ExecStart={self.programs}/postgres -D {data} {settings} -c fsync=off -c max_connections=200\n"
        )

    def _wait_for_postgres(self, data: Path) -> None:
        until = self.clock() + 30
        while not self.runner.run(["pg_isready", "-h", str(data), "-p", str(self.port)], timeout=10).ok:
            if self.clock() > until:
                said = "\n".join(unit_journal(self.runner, POSTGRES, lines=JOURNAL_LINES))
                raise RehearsalError(f"the PostgreSQL of the copy does not start. It says:\n{said}")
            self.sleep(0.2)

    def _pipe_tables(self, data: Path) -> None:
        listed = self._live(TRACKING).split()
        if listed:
            tables = [word for name in listed for word in ("--table", name)]
            self._pipe(["pg_dump", "--data-only", "--disable-triggers", *tables, self.database], data, self.database)

    def _pipe(self, dump: Sequence[str], data: Path, into: str, *, stop: bool = True) -> None:
        """From the real cluster into the copy; no file has it, and no argument a secret."""
        load = ["psql", "-qX", "-h", str(data), "-p", str(self.port), "-d", into, "-o", "/dev/null"]
        load += ["--set=ON_ERROR_STOP=1"] if stop else []
        script = 'cut=$1; shift; "${@:1:cut}" | "${@:cut+1}"'
        command = ["bash", "-o", "pipefail", "-c", script, "copy", str(len(dump)), *dump, *load]
        done = self.runner.run(self._as_postgres(*command), timeout=self.timeout)
        if not done.ok and stop:
            raise RehearsalError(f"the database {self.database} cannot be copied ({dump[0]}): {done.words(lines=5)}")

    def _fingerprint(self) -> str:
        """Of the schema of the copy, and of the rows that keep track of migrations."""
        dump = ["pg_dump", "-h", str(self.folder / "data"), "-p", str(self.port), self.database]
        listed = self._live(TRACKING).split()
        tables = [word for name in listed for word in ("--table", name)]
        found = [self._must(self._as_postgres(*dump, "--schema-only")).stdout]
        if tables:
            found.append(self._must(self._as_postgres(*dump, "--data-only", "--disable-triggers", *tables)).stdout)
        # Each dump has a word of its own in these lines.
        lines = [line for text in found for line in text.splitlines() if "restrict" not in line]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    # An act

    def _act(self, parts: Sequence[Part], who: str, locks: dict[str, float]) -> Act:
        begin = self.clock()
        names = {part.name: f"{PREFIX}-{who}-{part.name}.service" for part in parts}
        for part in parts:
            self._beside_the_copy(part, getattr(part, who), names[part.name])
        self._must(["systemctl", "daemon-reload"])
        for name in names.values():
            self.runner.run(["systemctl", "start", "--no-block", name], timeout=30)
        trouble = self._until_healthy(parts, who, names, begin, locks)
        seconds = self.clock() - begin
        journal = [line for name in names.values() for line in self._said(name, restarted=bool(trouble))]
        for name in names.values():
            # Some hang in their stop, and what they leave is a copy's.
            self.runner.run(["systemctl", "kill", "--signal=SIGKILL", name], timeout=30)
            self.runner.run(["systemctl", "stop", name], timeout=60)
        return Act(ok=not trouble, seconds=seconds, words=trouble or "healthy", journal=journal)

    def _beside_the_copy(self, part: Part, unit: str, name: str) -> None:
        """The slot's own unit under another name, in the copy's network, with folders of its own in place of the real ones."""
        (self.units / name).write_text(Path(f"/etc/systemd/system/{unit}").read_text())
        binds = []
        outermost = [path for path in part.state if not any(path.startswith(f"{other}/") for other in part.state)]
        for path in part.state:
            own = self.folder / "state" / path.strip("/")
            self._must(["install", "-d", str(own)])
            self._must(["chown", f"--reference={path}", str(own)])
            self._must(["chmod", f"--reference={path}", str(own)])
            binds += [f"BindPaths={own}:{path}\n"] if path in outermost else []
        self._unit(
            f"{name}.d/rehearsal.conf",
            f"[Unit]\nJoinsNamespaceOf={POSTGRES}\n\n[Service]\nPrivateNetwork=yes\nRestart=always\nRestartSec=1\n{''.join(binds)}",
        )

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
            for table in self._shut():
                locks[table] = round(locks.get(table, 0.0) + now - looked, 1)
            looked = now
            self.sleep(0.3)
        return ""

    def _crashes(self, unit: str) -> int:
        shown = self.runner.run(["systemctl", "show", "--property=NRestarts", "--value", unit], timeout=10)
        return int(shown.stdout.strip() or 0)

    def _ask(self, url: str) -> str:
        pid = self.runner.run(
            ["systemctl", "show", "--property=MainPID", "--value", POSTGRES], timeout=10
        ).stdout.strip()
        asked = self.runner.run(["nsenter", f"--net=/proc/{pid}/ns/net", "--", "python3", "-c", ASK, url], timeout=15)
        return asked.stdout.strip()

    def _shut(self) -> list[str]:
        """Tables that nobody could read in this moment."""
        query = (
            "SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND relation IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'p'))"
        )
        return self.runner.run(self._on_copy(query), timeout=10).stdout.split()

    def _said(self, unit: str, *, restarted: bool) -> list[str]:
        return unit_journal(self.runner, unit, lines=JOURNAL_LINES, restarted=restarted)

    # The host

    def clear(self) -> None:
        """Nothing of this rehearsal, or of one that was cut off, is left."""
        listed = self.runner.run(
            ["systemctl", "list-units", "--all", "--plain", "--no-legend", f"{PREFIX}-*"], timeout=30
        )
        for unit in sorted(
            (line.split()[0] for line in listed.stdout.splitlines() if line.strip()), key=lambda name: name == POSTGRES
        ):
            self.runner.run(["systemctl", "stop", unit], timeout=120)
            self.runner.run(["systemctl", "reset-failed", unit], timeout=30)
        for path in self.units.glob(f"{PREFIX}-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.folder.exists():
            _empty(self.folder)
        self.runner.run(["systemctl", "daemon-reload"], timeout=60)

    def _unit(self, name: str, text: str) -> None:
        path = self.units / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _on_copy(self, statement: str) -> list[str]:
        data, port = str(self.folder / "data"), str(self.port)
        return self._as_postgres("psql", "-AtqX", "-h", data, "-p", port, "-d", self.database, "-c", statement)

    def _live(self, query: str) -> str:
        done = self._must(self._as_postgres("psql", "-AtX", "-c", query, self.database))
        return done.stdout.strip()

    @staticmethod
    def _as_postgres(*command: str) -> list[str]:
        return ["runuser", "-u", "postgres", "--", *command]

    def _must(self, command: Sequence[str]) -> CommandResult:
        done = self.runner.run(command, timeout=self.timeout)
        if not done.ok:
            what = re.sub(r"^runuser -u postgres -- ", "", " ".join(command))
            raise RehearsalError(f"{what[:200]}: {done.words(lines=5)}")
        return done
