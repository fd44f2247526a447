"""The copy of a database: whether it is made, kept, refused, found damaged; and how two databases change their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.database_copy import (
    DatabaseCopy,
    DatabaseCopyError,
    beside,
    copies,
    described,
)

GIB = 2**30


class Cluster:
    """A runner that has databases, and whose dump writes a file."""

    def __init__(self, *databases: str, size: int = 5 * 2**20, connections: int = 0, comment: str = "") -> None:
        self.comment = comment
        self.databases, self.size, self.connections = set(databases), size, connections
        self.said: list[str] = []
        self.dumps = CommandResult(("pg_dump",), 0)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        command = tuple(argv)
        if command[0] == "bash":
            if "pg_dump" in command[2] and self.dumps.ok:
                Path(command[-1]).write_bytes(b"a dump")
            return self.dumps if "pg_dump" in command[2] else CommandResult(command, 0)
        names = dict(word.removeprefix("--set=").split("=", 1) for word in command if word.startswith("--set="))
        return CommandResult(command, 0, self._answer(stdin or "", names))

    def which(self, executable: str) -> str | None:
        return executable

    def _answer(self, query: str, names: dict[str, str]) -> str:
        said = " ".join(query.split())
        for key, name in names.items():
            said = said.replace(f':"{key}"', name)
        if not said.startswith(("SELECT", "SHOW")):
            self.said.append(said)
        if "shobj_description" in said:
            return self.comment
        if "pg_database_size" in said:
            return str(self.size)
        if said.startswith("SELECT 1 FROM pg_database"):
            return "1" if names["name"] in self.databases else ""
        if "pg_terminate_backend" in said:
            self.connections, left = max(0, self.connections - 1), self.connections
            return str(left)
        if said.startswith("SELECT format('CREATE"):
            return f"CREATE DATABASE {names['new']}"
        return ""


def database(cluster: Cluster, *, free: int = GIB, **options: Any) -> DatabaseCopy:
    return DatabaseCopy("app", cluster, timeout=10, free=lambda _folder: free, sleep=lambda _seconds: None, **options)


def made(folder: Path, name: str = "20260101-000000-2", cluster: Cluster | None = None) -> Path:
    path = folder / f"{name}.dump"
    database(cluster or Cluster("app")).make(path, {"service": "app"}, keep=3)
    return path


def test_a_copy_has_its_size_and_checksum_beside_it(tmp_path: Path) -> None:
    path = made(tmp_path / "new" / "folder")
    written = json.loads(beside(path).read_text())
    assert (written["size"], written["database_size"], written["about"]) == (6, 5 * 2**20, {"service": "app"})
    assert written["checksum"].startswith("sha256:") and described(path) is not None
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, beside(path).name]


def test_a_copy_that_is_there_is_kept(tmp_path: Path) -> None:
    path = made(tmp_path)
    path.write_bytes(b"a dump, not to be made anew: the database is another one by now")
    _copy, changed = database(Cluster("app")).make(path, {}, keep=3)
    assert not changed and path.read_bytes().startswith(b"a dump, not")


def test_without_room_it_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DatabaseCopyError, match=r"100 MiB free.*may take 5 MiB.*safety_copy"):
        database(Cluster("app"), free=100 * 2**20).make(tmp_path / "1.dump", {}, keep=3)
    assert list(tmp_path.iterdir()) == []


def test_a_dump_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cluster = Cluster("app")
    cluster.dumps = CommandResult(("bash",), 1, "", "pg_dump: error: out of words")
    with pytest.raises(DatabaseCopyError, match="out of words"):
        made(tmp_path, cluster=cluster)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for day in range(1, 6):
        made(tmp_path, f"2026010{day}-000000-2")
    assert [Path(copy.path).stem[:8] for copy in copies(tmp_path)] == ["20260105", "20260104", "20260103"]
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda path: path.unlink(), "there is no copy .* There is none", id="gone"),
        pytest.param(lambda path: path.write_bytes(b"a dumb"), "is damaged", id="damaged"),
        pytest.param(lambda path: beside(path).write_text("{}"), "cannot be read", id="nobody knows of what"),
        pytest.param(
            lambda path: beside(path).write_text(
                beside(path).read_text().replace('"database": "app"', '"database": "other"')
            ),
            "a copy of the database other",
            id="of another database",
        ),
    ],
)
def test_what_cannot_be_put_back_is_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    path = made(tmp_path)
    spoil(path)
    cluster = Cluster("app")
    with pytest.raises(DatabaseCopyError, match=words):
        database(cluster).unpack(path, "app_until")
    assert cluster.said == []


def test_without_room_it_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(DatabaseCopyError, match="make room there"):
        database(Cluster("app"), free=2**20).unpack(made(tmp_path), "app_until")


def test_what_an_earlier_try_left_is_dropped_first(tmp_path: Path) -> None:
    cluster = Cluster("app", "app_unpacked")
    database(cluster).unpack(made(tmp_path), "app_until")
    assert cluster.said[0] == "DROP DATABASE app_unpacked WITH (FORCE);"
    assert cluster.said[1:4] == [
        "CREATE DATABASE app_unpacked;",
        "COMMENT ON DATABASE app_unpacked IS :'text';",
        "ANALYZE;",
    ]


def test_what_a_run_before_has_swapped_is_not_unpacked_again(tmp_path: Path) -> None:
    path = made(tmp_path)
    copy = described(path)
    assert copy
    cluster = Cluster("app", "app_until", comment=copy.checksum)
    assert database(cluster).unpack(path, "app_until") == (copy, False)
    assert cluster.said == []
    with pytest.raises(DatabaseCopyError, match="another copy than .* which is called app_until now"):
        database(Cluster("app", "app_until", comment="sha256:0")).unpack(path, "app_until")


def test_the_two_change_their_names_at_once_and_nobody_is_in(tmp_path: Path) -> None:
    cluster = Cluster("app", "app_unpacked", connections=2)
    assert database(cluster).swap("app_until") is True
    (renamed,) = [said for said in cluster.said if "RENAME" in said]
    assert (
        renamed == "BEGIN; ALTER DATABASE app RENAME TO app_until; ALTER DATABASE app_unpacked RENAME TO app; COMMIT;"
    )
    shut = [said for said in cluster.said if "ALLOW_CONNECTIONS false" in said]
    assert len(shut) == 2 and cluster.said.index(renamed) > cluster.said.index(shut[1])
    assert "ALTER DATABASE app ALLOW_CONNECTIONS true;" in cluster.said[cluster.said.index(renamed) :]


def test_a_swap_that_was_done_is_not_done_again() -> None:
    assert database(Cluster("app", "app_until")).swap("app_until") is False
    assert database(Cluster("app", "app_unpacked")).swap_back("app_until") is False


def test_connections_that_stay_end_it_and_let_everybody_in_again() -> None:
    cluster = Cluster("app", "app_unpacked", connections=10**6)
    moments = iter(range(0, 1000, 10))
    with pytest.raises(DatabaseCopyError, match="do not end within"):
        database(cluster, clock=lambda: float(next(moments))).swap("app_until")
    assert not any("RENAME" in said for said in cluster.said)
    assert cluster.said[-2:] == [f"ALTER DATABASE {name} ALLOW_CONNECTIONS true;" for name in ("app", "app_unpacked")]
