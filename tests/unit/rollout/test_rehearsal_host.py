"""A rehearsal's own part of a host: one at a time, room for the copy, nothing left; and when to give it up. The rest is in test_upgrade.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.database import Copy
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.lock import (
    RehearsalError,
    alone,
    wanted_no_more,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.place import Place
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.stage import Part, Stage, rehearse

PART = Part(name="server", new="web-server@green.service", old="web-server@blue.service", new_probe={}, old_probe={})


class Host:
    """Says what a command would say, by its first words."""

    def __init__(self, **answers: CommandResult) -> None:
        self.answers = answers

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        for word, answer in self.answers.items():
            if any(word in each for each in argv):
                return answer
        return CommandResult(argv=tuple(argv), rc=0, stdout="8388608")

    def which(self, executable: str) -> str | None:
        return executable


def place(tmp_path: Path, host: Host | None = None) -> Place:
    (tmp_path / "units").mkdir(exist_ok=True)
    return Place(runner=host or Host(), timeout=60, folder=tmp_path / "copy", units=tmp_path / "units")


def copy_in(made: Place) -> Copy:
    return Copy(made, database="web", version=17, port=6432)


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))


def test_without_room_it_says_how_much_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, 100 * 2**20)
    with pytest.raises(RehearsalError) as failed:
        copy_in(place(tmp_path)).decide("full", 0)
    words = f"{tmp_path}/copy has 100 MiB free, and a copy of web wants 272 MiB. Make room there, or mount another disk there"
    assert str(failed.value) == f"{words}; or rehearse with the schema alone (rollout.rehearsal: schema)"
    with pytest.raises(RehearsalError, match=r"wants 256 MiB\. Make room there, or mount another disk there$"):
        copy_in(place(tmp_path)).decide("schema", 0)


@pytest.mark.parametrize(
    ("copy", "limit", "copied"), [("auto", 2**23, "full"), ("auto", 2**23 - 1, "schema"), ("full", 0, "full")]
)
def test_how_much_is_copied(tmp_path: Path, copy: str, limit: int, copied: str) -> None:
    made = copy_in(place(tmp_path))
    made.decide(copy, limit)
    assert made.copied == copied


def test_a_disk_that_fills_meanwhile_is_named_beside_the_program_s_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(stderr: str, **answers: CommandResult) -> str:
        there = place(tmp_path, Host(initdb=CommandResult(argv=("initdb",), rc=1, stderr=stderr), **answers))
        there.folder.mkdir()
        with pytest.raises(RehearsalError) as failed:
            rehearse(Stage(there), copy_in(there), [PART])
        assert not (tmp_path / "copy").exists()
        return str(failed.value)

    disk(monkeypatch, 4096)
    words = tried("initdb: could not write")
    assert "initdb: could not write" in words and "The disk is full: " in words
    # With room it is something else, and the program has said all there is to say.
    disk(monkeypatch, 2**30)
    assert "The disk is full" not in tried("initdb: could not write")
    # It may be said long before the end.
    assert "The disk is full" in tried("initdb: No space left on device" + 9 * "\nand more")
    # Unless the copy's PostgreSQL says so, which its clients do not know.
    said = CommandResult(
        argv=("journalctl",), rc=0, stdout="PANIC:  could not write to file: No space left on device\n"
    )
    assert "The disk is full: the copy did not fit in " in tried("initdb: the connection was lost", journalctl=said)
    # Or it says so itself, and has taken away what it had written.
    assert "The disk is full: the copy did not fit in " in tried("initdb: could not write: No space left on device")


def test_nothing_is_left_but_what_the_operator_put_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "disk" / "filler").write_text("x")
    (tmp_path / "copy").symlink_to(tmp_path / "disk")
    place(tmp_path).clear()
    assert (tmp_path / "copy").is_symlink() and list((tmp_path / "disk").iterdir()) == []
    (tmp_path / "copy").unlink()
    (tmp_path / "copy" / "data").mkdir(parents=True)
    place(tmp_path).clear()
    assert not (tmp_path / "copy").exists()


def test_what_others_use_is_stopped_after_them(tmp_path: Path) -> None:
    stopped: list[str] = []

    class Listing(Host):
        def run(self, argv: Sequence[str], **options: Any) -> CommandResult:
            if "list-units" in argv:
                names = ("postgres.service", "network.service", "door.socket", "new-server.service")
                return CommandResult(tuple(argv), 0, "\n".join(f"selfhost-rehearsal-{name} loaded" for name in names))
            if argv[1] == "stop":
                stopped.append(argv[2].removeprefix("selfhost-rehearsal-"))
            return super().run(argv, **options)

    place(tmp_path, Listing()).clear()
    assert stopped == ["door.socket", "new-server.service", "postgres.service", "network.service"]


def test_one_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    seconds = iter(range(100))
    with (
        alone(5, lock),
        pytest.raises(RehearsalError, match=r"another one has been going on for 5 s\. Wait for it, and run again"),
        alone(5, lock, clock=lambda: float(next(seconds)), sleep=lambda _seconds: None),
    ):
        pytest.fail("two at once")
    with alone(0, lock):
        pass


def test_it_is_given_up_where_nobody_waits_for_it(tmp_path: Path) -> None:
    stage = Stage(place(tmp_path), forsaken=lambda: True)
    with pytest.raises(RehearsalError, match="nobody waits for it any more"):
        stage._until_healthy([PART], "new", {"server": "unit"}, 0.0, {})


@pytest.mark.parametrize(
    ("url", "given"), [("http://127.0.0.1:8081/health", []), ("http://10.0.0.2:8081/health", ["10.0.0.2"])]
)
def test_what_other_hosts_reach_finds_its_address_in_a_network_of_its_own(
    tmp_path: Path, url: str, given: list[str]
) -> None:
    asked: list[str] = []

    class Listening(Host):
        def run(self, argv: Sequence[str], **options: Any) -> CommandResult:
            if "address" in argv:
                asked.append(argv[-3])
            return super().run(argv, **options)

    Stage(place(tmp_path, Listening()))._be_at([Stage.address(url)])
    assert asked == given


def test_whether_somebody_waits_is_seen_by_who_reads() -> None:
    reader, writer = os.pipe()
    assert not wanted_no_more(writer)
    os.close(reader)
    assert wanted_no_more(writer)
    os.close(writer)
