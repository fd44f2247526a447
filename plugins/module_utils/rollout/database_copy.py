# GNU General Public License v3.0+ (see LICENSE)
"""The copy of a database from before a migration, and the way back to it.

The way back takes no data away: the copy is unpacked beside the database while that serves, then the two change their names, and what stood there
until then stays under another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..commands import Runner
from ..transaction.journal import sync_folder, write_durably

ROOM = 256 * 1024 * 1024  # bytes that stay free
CHUNK = 1024 * 1024
UNPACKED = "_unpacked"  # of a database's name, while it stands beside the one that serves
PATIENCE = 30  # seconds for connections to end that were told to

# How a database was made, without its name. Which column has the locale depends on PostgreSQL's version. psql itself puts the names in.
CREATE = """
SELECT format('CREATE DATABASE %I TEMPLATE template0 OWNER %I ENCODING %L LC_COLLATE %L LC_CTYPE %L LOCALE_PROVIDER %s CONNECTION LIMIT %s',
  :'new', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype,
  CASE datlocprovider WHEN 'i' THEN format('icu ICU_LOCALE %L', locale) WHEN 'b' THEN format('builtin BUILTIN_LOCALE %L', locale) ELSE 'libc' END,
  datconnlimit)
FROM pg_database AS of, LATERAL (SELECT coalesce(to_jsonb(of) ->> 'datlocale', to_jsonb(of) ->> 'daticulocale') AS locale) AS its
WHERE datname = :'old'
"""
# Who may use it, and its settings, which are no part of a dump. Settings that are lists have their quotes already, as pg_dump knows too.
PROPERTIES = """
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'new') FROM pg_database WHERE datname = :'old' AND datacl IS NOT NULL
UNION ALL
SELECT format('GRANT %s ON DATABASE %I TO %s%s', acl.privilege_type, :'new',
  CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END,
  CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_database, aclexplode(datacl) AS acl WHERE datname = :'old'
UNION ALL
SELECT format('ALTER %s DATABASE %I SET %I TO %s', CASE setrole WHEN 0 THEN '' ELSE format('ROLE %I IN', pg_get_userbyid(setrole)) END, :'new', name,
  CASE WHEN name IN ('search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries')
    THEN given ELSE quote_literal(given) END)
FROM pg_db_role_setting, pg_database, unnest(setconfig) AS setting,
  LATERAL (SELECT split_part(setting, '=', 1) AS name, substr(setting, strpos(setting, '=') + 1) AS given) AS its
WHERE setdatabase = pg_database.oid AND datname = :'old'
"""
# The checksum of the copy that the database is, since it was unpacked: a comment goes along where it changes its name.
COMMENT = """COMMENT ON DATABASE :"name" IS :'text'"""
COMMENTED = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
END = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = ANY (string_to_array(:'names', ','))
"""


class DatabaseCopyError(Exception):
    """What went wrong, and what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """`size` and `database_size` in bytes, `checksum` as sha256:..., `about`: whose copy it is."""

    path: str
    database: str
    size: int
    database_size: int
    checksum: str
    seconds: float
    about: Mapping[str, Any]


class DatabaseCopy:
    """One database of the host's cluster."""

    def __init__(
        self,
        database: str,
        runner: Runner,
        *,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        if not database.replace("_", "").replace("-", "").isalnum():
            raise DatabaseCopyError(f"{database!r} is made of other characters than letters, digits, - and _")
        self.database, self.unpacked = database, f"{database}{UNPACKED}"
        self.runner, self.timeout, self.clock, self.sleep, self.free = runner, timeout, clock, sleep, free

    # The copy

    def make(self, path: Path, about: Mapping[str, Any], *, keep: int) -> tuple[Copy, bool]:
        """The copy at this path, and whether it was made now: one that is there stays, as a run that goes on may have migrated since."""
        if (made := described(path)) is not None:
            return made, False
        size = int(self._query("SELECT pg_database_size(current_database())"))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        free, wanted = self.free(path.parent), size + ROOM
        if free < wanted:
            raise DatabaseCopyError(
                f"{path.parent} has {free // 2**20} MiB free, and a copy of the database {self.database} may take {size // 2**20} MiB beside "
                f"{ROOM // 2**20} MiB that stay free. Make room there; or go without a copy (rollout.safety_copy: off)"
            )
        begin, part = self.clock(), path.with_name(f"{path.name}.part")
        dump = 'umask 077; runuser -u postgres -- pg_dump --format=custom --compress=1 "$1" >"$2"'
        try:
            done = self.runner.run(["bash", "-c", dump, "copy", self.database, str(part)], timeout=self.timeout)
            if not done.ok:
                raise DatabaseCopyError(f"the database {self.database} cannot be copied: {done.words(lines=5)}")
            checksum, length = checked(part, sync=True)
            copy = Copy(
                path=str(path),
                database=self.database,
                size=length,
                database_size=size,
                checksum=checksum,
                seconds=round(self.clock() - begin, 1),
                about=about,
            )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        # Last: without it there is no copy.
        write_durably(beside(path), (json.dumps(asdict(copy), indent=1) + "\n").encode(), 0o600, 0, 0)
        sync_folder(path.parent)
        for old in copies(path.parent)[keep:]:
            beside(Path(old.path)).unlink()
            Path(old.path).unlink(missing_ok=True)
        return copy, True

    # The way back to it

    def unpack(self, path: Path, aside: str) -> tuple[Copy, bool]:
        """Into a database beside the one that serves, and whether it was done now: not where a run that was cut off had come as far as `swap`."""
        copy = described(path)
        if copy is None:
            there = ", ".join(Path(each.path).stem for each in copies(path.parent))
            raise DatabaseCopyError(
                f"there is no copy {path}. " + (f"There are: {there}" if there else "There is none in that folder")
            )
        if copy.database != self.database:
            raise DatabaseCopyError(f"{path} is a copy of the database {copy.database}, and not of {self.database}")
        if checked(path)[0] != copy.checksum:
            raise DatabaseCopyError(
                f"{path} is damaged: it has not the checksum that it was made with. Take an older copy, or a backup"
            )
        if self._exists(aside):
            if self._query(COMMENTED) != copy.checksum:
                raise DatabaseCopyError(
                    f"a rollback that was cut off has put another copy than {path} in the place of {self.database}, which is called {aside} now. "
                    "Name that copy; or have the version that served until then in the inventory, and run upgrade.yml, which takes it back"
                )
            return copy, False
        self.forget()
        data = Path(self._query("SHOW data_directory"))
        free, wanted = self.free(data), copy.database_size + ROOM
        if free < wanted:
            raise DatabaseCopyError(
                f"{data} has {free // 2**20} MiB free, and the database of the copy wants {wanted // 2**20} MiB beside the one that serves: make room there"
            )
        names = {"old": self.database, "new": self.unpacked}
        self._do(self._query(CREATE, **names))
        load = 'runuser -u postgres -- pg_restore --exit-on-error --dbname="$1" <"$2"'
        done = self.runner.run(["bash", "-c", load, "copy", self.unpacked, str(path)], timeout=self.timeout)
        if not done.ok:
            self.forget()
            raise DatabaseCopyError(f"{path} cannot be unpacked: {done.words(lines=5)}")
        for statement in self._query(PROPERTIES, **names).splitlines():
            self._do(statement)
        self._do(COMMENT, name=self.unpacked, text=copy.checksum)
        self._psql(self.unpacked, "ANALYZE")
        return copy, True

    def swap(self, aside: str) -> bool:
        """The unpacked database gets the name, and what had it is called `aside`. False where that has been done."""
        if self._exists(aside) and not self._exists(self.unpacked):
            return False
        self._rename([(self.database, aside), (self.unpacked, self.database)])
        return True

    def swap_back(self, aside: str) -> bool:
        """As it was before `swap`. False where that was not done."""
        if not self._exists(aside):
            return False
        self._rename([(self.database, self.unpacked), (aside, self.database)])
        return True

    def forget(self) -> bool:
        """Nothing of an unpacked copy is left."""
        if not self._exists(self.unpacked):
            return False
        self._do('DROP DATABASE :"name" WITH (FORCE)', name=self.unpacked)
        return True

    def _rename(self, pairs: Sequence[tuple[str, str]]) -> None:
        """All of them or none, while nobody can come in."""
        try:
            for name, _new in pairs:
                self._do('ALTER DATABASE :"name" ALLOW_CONNECTIONS false', name=name)
            self._empty([name for name, _new in pairs])
            renamed = [f'ALTER DATABASE :"old{number}" RENAME TO :"new{number}";' for number, _pair in enumerate(pairs)]
            names = {
                f"{key}{number}": name
                for number, pair in enumerate(pairs)
                for key, name in zip(("old", "new"), pair, strict=True)
            }
            self._do(" ".join(["BEGIN;", *renamed, "COMMIT"]), **names)
        finally:
            for name in sorted({name for pair in pairs for name in pair}):
                if self._exists(name):
                    self._do('ALTER DATABASE :"name" ALLOW_CONNECTIONS true', name=name)

    def _empty(self, names: Sequence[str]) -> None:
        until = self.clock() + PATIENCE
        while int(self._psql("postgres", END, names=",".join(names))):
            if self.clock() > until:
                raise DatabaseCopyError(
                    f"connections to {' and '.join(names)} do not end within {PATIENCE} s, though they were told to"
                )
            self.sleep(0.2)

    def _exists(self, name: str) -> bool:
        return bool(self._psql("postgres", "SELECT 1 FROM pg_database WHERE datname = :'name'", name=name))

    def _query(self, query: str, **names: str) -> str:
        return self._psql(self.database, query, **names)

    def _do(self, statement: str, **names: str) -> None:
        self._psql("postgres", statement, **names)

    def _psql(self, database: str, query: str, **names: str) -> str:
        """`names` are psql's variables. By standard input, which alone it puts them into."""
        command = ["runuser", "-u", "postgres", "--", "psql", "-AtX", "--set=ON_ERROR_STOP=1", "--dbname", database]
        command += [f"--set={key}={name}" for key, name in names.items()]
        done = self.runner.run(command, stdin=f"{query};\n", timeout=self.timeout)
        if not done.ok:
            raise DatabaseCopyError(f"{' '.join(query.split())[:120]}: {done.words(lines=5)}")
        return done.stdout.strip()


def beside(path: Path) -> Path:
    """Where it is written what a copy is."""
    return path.with_suffix(f"{path.suffix}.json")


def described(path: Path) -> Copy | None:
    """A copy that is whole; None where there is none."""
    try:
        return Copy(**json.loads(beside(path).read_text())) if path.exists() else None
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DatabaseCopyError(f"{beside(path)} cannot be read: {error}") from None


def copies(folder: Path) -> list[Copy]:
    """All of a folder, the newest first; their names begin with their time."""
    found = [described(path) for path in sorted(folder.glob("*.dump"), reverse=True)]
    return [copy for copy in found if copy is not None]


def checked(path: Path, *, sync: bool = False) -> tuple[str, int]:
    """The checksum and the bytes of a file, which is on the disk then."""
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            length += len(chunk)
    return f"sha256:{digest.hexdigest()}", length
