# GNU General Public License v3.0+ (see LICENSE)
"""The copy of a database that a release is rehearsed with: a PostgreSQL of its own, in a network of its own.

Roles, which a copy inside the real cluster would share with it, are copies too. Where the service is on another host, a door leads from
there to the copy, through the fleet's own TLS, and out of it leads none.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ...storage import free
from .lock import RehearsalError
from .place import PREFIX, ROOM, Place

POSTGRES = f"{PREFIX}-postgres.service"
DOOR, WATCH = f"{PREFIX}-door", f"{PREFIX}-watch.service"
PROXY = "/usr/lib/systemd/systemd-socket-proxyd"
LOOK = 0.3  # seconds between two looks at locks
ATTRIBUTES = ("SUPERUSER", "CREATEDB", "CREATEROLE", "LOGIN", "REPLICATION", "BYPASSRLS")
# How programs call the tables that keep track of migrations.
TRACKING = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
AND tablename ~* '(migration|schema_version|schema_history|flyway|alembic_version|changelog|goose_db|knex_)'
"""
# Tables that nobody can read in this moment.
SHUT = (
    "SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND relation IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'p'))"
)


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


class Copy:
    """Of one database, on the host that has it; `port` is where it listens, in its own network."""

    def __init__(
        self,
        place: Place,
        *,
        database: str,
        version: int,
        port: int,
        attributes: Mapping[str, Sequence[str]] | None = None,
        extensions: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.place, self.database, self.port = place, database, port
        self.roles = list(attributes or {})
        self.wanted = as_wanted(attributes or {}, extensions)
        self.clock, self.sleep = clock, sleep
        self.programs = f"/usr/lib/postgresql/{version}/bin"
        self.data = place.folder / "data"
        self.full = False
        self.size = 0  # bytes of the real database

    @property
    def copied(self) -> str:
        return "full" if self.full else "schema"

    def decide(self, copy: str, full_up_to: int) -> None:
        """`copy` is schema, full, or auto: full for a database of up to so many bytes."""
        self.size = int(self._live("SELECT pg_database_size(current_database())"))
        self.full = copy == "full" or (copy == "auto" and self.size <= full_up_to)
        there, wanted = self.place.make_folder(), 2 * (self.size if self.full else 0) + ROOM
        if there < wanted:
            raise RehearsalError(
                f"{self.place.folder} has {there // 2**20} MiB free, and a copy of {self.database} wants {wanted // 2**20} MiB. "
                f"Make room there, or mount another disk there{self._smaller()}"
            )

    def _smaller(self) -> str:
        return "; or rehearse with the schema alone (rollout.rehearsal: schema)" if self.full and self.size else ""

    @contextmanager
    def room(self) -> Iterator[None]:
        """What fails within because the disk is full says so."""
        try:
            yield
        except RehearsalError as error:
            # A PostgreSQL that has ended of it has said so, not its client; and has taken away what it could not write to its end.
            if not self.place.is_full("\n".join([str(error), *self.place.said(POSTGRES)])):
                raise
            raise RehearsalError(
                f"{error}\nThe disk is full: the copy did not fit in {self.place.folder} ({free(self.place.folder)} by now), and is taken away. "
                f"Make room there, or mount another disk there{self._smaller()}; then run again"
            ) from None

    def make(self, lifetime: float = 0) -> None:
        """With a `lifetime` it can be reached from another host, through TLS as the real one, and ends by itself after so many seconds."""
        self.place.must(["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "0700", str(self.data)])
        self.place.must(
            _as_postgres(f"{self.programs}/initdb", "--no-sync", "--auth-host=scram-sha-256", "-D", str(self.data))
        )
        if lifetime:
            (self.data / "pg_hba.conf").write_text(self._let_in())
        self.place.unit(POSTGRES, self._postgres_unit(lifetime))
        self.place.start(POSTGRES)
        self._wait_for_postgres()
        # Roles first, and without a stop: those of the new cluster itself are there already.
        self._pipe(["pg_dumpall", "--roles-only"], "postgres", stop=False)
        what = [] if self.full else ["--schema-only"]
        self._pipe(["pg_dump", "--create", *what, self.database], "postgres")
        if not self.full:
            self._pipe_tables()
        for statement in self.wanted:
            self.place.must(self._on_copy(statement))

    def _let_in(self) -> str:
        """pg_hba.conf of a copy that is reached from another host: the service's own role, as in the real cluster; by the door all come from here."""
        users = ",".join(f'"{role}"' for role in self.roles) or "all"
        return f'local all postgres peer\nhostssl "{self.database}" {users} 127.0.0.1/32 scram-sha-256\n'

    def _postgres_unit(self, lifetime: float = 0) -> str:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.data,
            "fsync": "off",
            "max_connections": 200,
        }
        end = ""
        if lifetime:
            settings |= {
                "ssl": "on",
                **{name: self._live(f"SHOW {name}") for name in ("ssl_cert_file", "ssl_key_file")},
            }
            end = f"RuntimeMaxSec={lifetime:.0f}\nExecStopPost=+/bin/rm -rf {self.data}\n"
        words = " ".join(f"-c {name}={value}" for name, value in settings.items())
        return (
            "[Unit]\nDescription=A copy of the database that a release is rehearsed with\n\n"
            # Who joins its network joins its /tmp, too; of a unit without one of its own that is a folder that nobody can write to.
            "[Service]\nUser=postgres\nPrivateNetwork=yes\nPrivateTmp=yes\n"
            "KillSignal=SIGINT\nTimeoutStopSec=20\nNoNewPrivileges=yes\n"
            f"ExecStart={self.programs}/postgres -D {self.data} {words}\n{end}"
        )

    def _wait_for_postgres(self) -> None:
        until = self.clock() + 30
        while not self.place.runner.run(["pg_isready", "-h", str(self.data), "-p", str(self.port)], timeout=10).ok:
            if self.clock() > until:
                said = "\n".join(self.place.said(POSTGRES))
                raise RehearsalError(f"the PostgreSQL of the copy does not start. It says:\n{said}")
            self.sleep(0.2)

    def _pipe_tables(self) -> None:
        listed = self._live(TRACKING).split()
        if listed:
            tables = [word for name in listed for word in ("--table", name)]
            self._pipe(["pg_dump", "--data-only", "--disable-triggers", *tables, self.database], self.database)

    def _pipe(self, dump: Sequence[str], into: str, *, stop: bool = True) -> None:
        """From the real cluster into the copy; no file has it, and no argument a secret."""
        load = ["psql", "-qX", "-h", str(self.data), "-p", str(self.port), "-d", into, "-o", "/dev/null"]
        load += ["--set=ON_ERROR_STOP=1"] if stop else []
        script = 'cut=$1; shift; "${@:1:cut}" | "${@:cut+1}"'
        command = ["bash", "-o", "pipefail", "-c", script, "copy", str(len(dump)), *dump, *load]
        done = self.place.runner.run(_as_postgres(*command), timeout=self.place.timeout)
        if not done.ok and stop:
            raise RehearsalError(f"the database {self.database} cannot be copied ({dump[0]}): {done.words(lines=5)}")

    def fingerprint(self) -> str:
        """Of the schema of the copy, and of the rows that keep track of migrations."""
        dump = ["pg_dump", "-h", str(self.data), "-p", str(self.port), self.database]
        listed = self._live(TRACKING).split()
        tables = [word for name in listed for word in ("--table", name)]
        found = [self.place.must(_as_postgres(*dump, "--schema-only")).stdout]
        if tables:
            found.append(self.place.must(_as_postgres(*dump, "--data-only", "--disable-triggers", *tables)).stdout)
        # Each dump has a word of its own in these lines.
        lines = [line for text in found for line in text.splitlines() if "restrict" not in line]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def shut(self) -> list[str]:
        """Tables that nobody can read in this moment."""
        return self.place.runner.run(self._on_copy(SHUT), timeout=10).stdout.split()

    # For a service on another host

    def open_door(self, lifetime: float) -> None:
        """From the host's `port` to the copy; the firewall and the copy itself say who may come. And look at its locks, which nobody is there to see."""
        end = f"RuntimeMaxSec={lifetime:.0f}\n"
        # The program in the door is in the copy's network, and its socket in that of the host.
        # It goes with the copy, also where that ends by itself.
        bound = f"[Unit]\nBindsTo={POSTGRES}\nAfter={POSTGRES}\n"
        self.place.unit(f"{DOOR}.socket", f"{bound}\n[Socket]\nListenStream={self.port}\n")
        self.place.unit(
            f"{DOOR}.service",
            f"[Unit]\nJoinsNamespaceOf={POSTGRES}\n\n"
            f"[Service]\nUser=postgres\nPrivateNetwork=yes\nPrivateTmp=yes\nNoNewPrivileges=yes\n{end}"
            f"ExecStart={PROXY} 127.0.0.1:{self.port}\n",
        )
        query = self.place.folder / "shut.sql"
        query.write_text(SHUT)
        look = f"psql -AtqX -h {self.data} -p {self.port} -d {self.database} -f {query}"
        self.place.unit(
            WATCH,
            f"[Service]\nUser=postgres\n{end}StandardOutput=append:{self.place.folder}/shut\n"
            f"ExecStart=/bin/bash -c 'while sleep {LOOK}; do {look}; done'\n",
        )
        self.place.start(f"{DOOR}.socket", WATCH)

    def was_shut(self) -> dict[str, float]:
        """Seconds for which tables could not be read since the door was opened, by their names."""
        said = self.place.folder / "shut"
        counted = Counter(said.read_text().split()) if said.exists() else Counter[str]()
        return {table: round(times * LOOK, 1) for table, times in counted.items()}

    # Sessions

    def _on_copy(self, statement: str) -> list[str]:
        words = ("psql", "-AtqX", "-h", str(self.data), "-p", str(self.port), "-d", self.database, "-c", statement)
        return _as_postgres(*words)

    def _live(self, query: str) -> str:
        done = self.place.must(_as_postgres("psql", "-AtX", "-c", query, self.database))
        return done.stdout.strip()


def _as_postgres(*command: str) -> list[str]:
    return ["runuser", "-u", "postgres", "--", *command]
