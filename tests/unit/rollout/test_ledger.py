"""The ledger: what is recorded, what of it is left after a power cut, and what is not written into it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout import ledger as ledger_module
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.files import RolloutError
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.ledger import (
    FOLDER,
    KEPT,
    LENGTH,
    Ledger,
    Outcome,
    plain,
)

OLD, NEW = {"version": "1.0", "slot": "blue"}, {"version": "2.0", "slot": "green"}


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 14, 50, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return Ledger(tmp_path, clock=clock)


def begin(ledger: Ledger, identifier: str = "one", service: str = "notes", **options: Any) -> Outcome:
    options = {"operator": "ada@bridge", "strategy": "rolling", "before": OLD, "after": NEW, **options}
    return ledger.begin(service, identifier, **options)


def path(tmp_path: Path, identifier: str = "one", service: str = "notes") -> Path:
    return tmp_path / FOLDER[1:] / service / f"{identifier}.json"


def test_a_rollout_from_its_beginning_to_its_end(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    assert not begin(ledger).resumes
    clock.pass_by(1)
    ledger.step("notes", "one", "start", "started")
    clock.pass_by(7.5)
    ledger.step("notes", "one", "start", "done", message="answers")
    clock.pass_by(1)
    ledger.step("notes", "one", "drain", "failed", seconds=0.25)
    ended = ledger.end("notes", "one", "rolled_back", "3 requests were left")
    wanted = {
        "format": 1,
        "id": "one",
        "service": "notes",
        "operator": "ada@bridge",
        "strategy": "rolling",
        "from": OLD,
        "to": NEW,
        "began": "2026-11-21T14:50:00.000Z",
        "outcome": "rolled_back",
        "ended": "2026-11-21T14:50:09.500Z",
        "seconds": 9.5,
        "message": "3 requests were left",
        "steps": [
            {
                "name": "start",
                "outcome": "done",
                "began": "2026-11-21T14:50:01.000Z",
                "ended": "2026-11-21T14:50:08.500Z",
                "seconds": 7.5,
                "message": "answers",
                "tries": 1,
            },
            {
                "name": "drain",
                "outcome": "failed",
                "began": "2026-11-21T14:50:09.250Z",
                "ended": "2026-11-21T14:50:09.500Z",
                "seconds": 0.25,
                "message": "",
                "tries": 1,
            },
        ],
        "resumed": [],
        "former_ends": [],
        "way_back": False,
    }
    assert ended.as_result()["record"] == wanted
    assert json.loads(path(tmp_path).read_text()) == wanted
    assert ledger.read("notes")["records"] == [wanted]


def test_all_steps_so_far_are_noted_once_and_when_they_were(ledger: Ledger, clock: Clock) -> None:
    begin(ledger)
    clock.pass_by(60)
    start = {"name": "start", "outcome": "done", "seconds": 5.0, "ago": 20.0, "comment": "answers"}
    gate = {"name": "gate", "outcome": "failed", "seconds": 2.0, "ago": 10.0}
    assert ledger.steps("notes", "one", [start]).changed
    assert not ledger.steps("notes", "one", [{**start, "comment": "", "ago": 40.0}]).changed
    record = ledger.end("notes", "one", "failed", "no", steps=[start, gate]).record
    assert record is not None and record.outcome == "failed"
    assert [(step.name, step.seconds, step.message) for step in record.steps] == [
        ("start", 5.0, "answers"),
        ("gate", 2.0, ""),
    ]
    noted = [datetime.fromisoformat(moment) for step in record.steps for moment in (step.began, str(step.ended))]
    begun = datetime.fromisoformat(record.began)
    assert [(moment - begun).total_seconds() for moment in noted] == [35, 40, 48, 50]


def test_for_root_alone_and_nothing_beside(tmp_path: Path, ledger: Ledger) -> None:
    begin(ledger)
    file = path(tmp_path)
    modes = [place.stat().st_mode & 0o777 for place in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    assert [entry.name for entry in file.parent.iterdir()] == ["one.json"]


def test_what_is_noted_twice_is_no_change(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    begin(ledger)
    calls = [
        lambda: ledger.step("notes", "one", "start", "started"),
        lambda: ledger.step("notes", "one", "start", "done", message="well"),
        lambda: ledger.end("notes", "one", "done", "all of it"),
    ]
    for call in calls:
        assert call().changed
        written = path(tmp_path).read_text()
        clock.pass_by(5)
        assert not call().changed
        assert path(tmp_path).read_text() == written


def test_a_step_that_is_started_again_has_another_try(ledger: Ledger, clock: Clock) -> None:
    begin(ledger)
    ledger.step("notes", "one", "start", "started")
    ledger.step("notes", "one", "start", "failed", message="crashed")
    clock.pass_by(60)
    ledger.step("notes", "one", "start", "started")
    clock.pass_by(2)
    record = ledger.step("notes", "one", "start", "done").record
    assert record
    assert [(step.tries, step.outcome, step.seconds, step.message) for step in record.steps] == [(2, "done", 2.0, "")]


def test_a_rollout_that_is_taken_up_again(ledger: Ledger, clock: Clock) -> None:
    begin(ledger)
    ledger.step("notes", "one", "start", "done")
    ledger.end("notes", "one", "failed", "no space")
    clock.pass_by(60)
    # By now the new slot is the one that runs.
    again = begin(ledger, operator="bob@bridge", before=NEW)
    assert again.resumes and again.record
    assert [step.name for step in again.record.steps] == ["start"]
    data = again.record.as_data()
    assert (data["operator"], data["from"], data["outcome"], data["ended"]) == ("ada@bridge", OLD, "unfinished", None)
    assert data["resumed"] == [{"at": "2026-11-21T14:51:00.000Z", "operator": "bob@bridge"}]
    assert data["former_ends"] == [{"at": "2026-11-21T14:50:00.000Z", "outcome": "failed", "message": "no space"}]
    end = ledger.end("notes", "one", "done").record
    assert end and (end.outcome, end.seconds, len(end.former_ends)) == ("done", 60.0, 1)


def test_an_id_is_of_one_rollout(tmp_path: Path, ledger: Ledger) -> None:
    begin(ledger)
    written = path(tmp_path).read_text()
    with pytest.raises(RolloutError, match=r"The rollout one of notes is one to 2\.0, not to 3\.0: .* another id"):
        begin(ledger, after={"version": "3.0", "slot": "blue"})
    assert path(tmp_path).read_text() == written


def test_a_first_installation_comes_from_nowhere(ledger: Ledger) -> None:
    begin(ledger, before=None)
    assert ledger.read()["records"][0]["from"] is None


def test_read_newest_first_of_one_or_all(ledger: Ledger, clock: Clock) -> None:
    for identifier, service in [("z", "notes"), ("y", "wiki"), ("x", "notes")]:
        begin(ledger, identifier, service)
        clock.pass_by(1)
    ledger.end("notes", "x", "done")

    def names(found: list[dict[str, Any]]) -> list[str]:
        return [record["id"] for record in found]

    assert names(ledger.read()["records"]) == ["x", "y", "z"]
    assert names(ledger.read("notes")["records"]) == ["x", "z"]
    limited = ledger.read("notes", limit=1)
    assert names(limited["records"]) == ["x"]
    assert names(limited["unfinished"]) == ["z"]
    assert ledger.read("nobody")["records"] == []


def test_what_another_run_left_open_is_said_when_one_begins(ledger: Ledger, clock: Clock) -> None:
    begin(ledger, "killed")
    clock.pass_by(1)
    unfinished = begin(ledger, "next").as_result()["unfinished"]
    assert [record["id"] for record in unfinished] == ["next", "killed"]


def test_the_newest_are_kept(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    begin(ledger, "other", "wiki")
    for number in range(KEPT + 3):
        begin(ledger, f"n{number}")
        ledger.end("notes", f"n{number}", "done")
        clock.pass_by(60)
    left = {file.stem for file in path(tmp_path).parent.iterdir()}
    assert left == {f"n{number}" for number in range(3, KEPT + 3)}
    assert path(tmp_path, "other", "wiki").exists()
    # One that is taken up again is old, and stays.
    begin(ledger, "n3")
    assert path(tmp_path, "n3").exists()


def test_the_own_record_stays_where_the_clock_was_put_back(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    for number in range(KEPT):
        begin(ledger, f"n{number}")
        clock.pass_by(1)
    clock.pass_by(-86400)
    outcome = begin(ledger, "own")
    assert path(tmp_path, "own").exists()
    assert len(list(path(tmp_path).parent.iterdir())) == KEPT == len(outcome.standing)
    end = ledger.end("notes", "n5", "done").record
    assert end and end.seconds == 0.0


DAMAGES = [
    "",
    "\0" * 300,
    '{"format": 1, "id": "one"',
    "[]",
    "null",
    '{"format": 2}',
    '{"format": 1}',
    "[" * 100000,
    "\ud800",
]


@pytest.mark.parametrize("text", DAMAGES)
def test_a_damaged_record_is_reported_and_hinders_nobody(tmp_path: Path, ledger: Ledger, text: str) -> None:
    begin(ledger, "well")
    file = path(tmp_path)
    file.write_bytes(text.encode(errors="surrogatepass"))
    found = ledger.read("notes")
    assert [record["id"] for record in found["records"]] == ["well"]
    (damaged,) = found["damaged"]
    assert (damaged["service"], damaged["id"], damaged["path"]) == ("notes", "one", str(file))
    assert damaged["problem"]
    for write in (lambda: ledger.step("notes", "one", "start", "done"), lambda: ledger.end("notes", "one", "done")):
        with pytest.raises(RolloutError, match=r"was not begun on this host: its record .* is damaged"):
            write()
    assert not begin(ledger).resumes
    assert ledger.read("notes")["damaged"] == []
    assert file.with_name("one.json.damaged").read_bytes() == text.encode(errors="surrogatepass")


@pytest.mark.parametrize(
    "changes",
    [
        {"began": "yesterday"},
        {"began": "2026-11-21T14:50:00"},
        {"began": 5},
        {"steps": None},
        {"steps": ["start"]},
        {"steps": [{"name": "start"}]},
        {"to": None},
        {"resumed": None},
        {"further": 1},
        {"id": "two"},
        {"service": "wiki"},
    ],
)
def test_each_part_is_looked_at(tmp_path: Path, ledger: Ledger, changes: dict[str, Any]) -> None:
    begin(ledger)
    file = path(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    found = ledger.read("notes")
    assert (len(found["records"]), len(found["damaged"])) == (0, 1)
    assert begin(ledger).changed


def test_a_power_cut_while_it_is_written_leaves_what_was(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(ledger)
    written = path(tmp_path).read_text()
    path(tmp_path).with_name(".one.json.new").write_text("{")

    def cut(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            ledger.end("notes", "one", "done")
    assert path(tmp_path).read_text() == written
    assert ledger.read("notes")["damaged"] == []
    assert ledger.end("notes", "one", "done").changed


def test_what_was_not_begun_has_no_steps(ledger: Ledger) -> None:
    with pytest.raises(RolloutError, match=r"The rollout one of notes was not begun .* is not there\. Begin it with"):
        ledger.step("notes", "one", "start", "started")
    with pytest.raises(RolloutError, match="was not begun"):
        ledger.end("notes", "one", "failed")


@pytest.mark.parametrize("name", ["../../etc/passwd", "", ".", "..", "a/b", "a b", "x" * 101, "ä", "one\n", "*"])
def test_a_name_stays_in_its_folder(tmp_path: Path, ledger: Ledger, name: str) -> None:
    with pytest.raises(RolloutError, match=r"^id: "):
        begin(ledger, name)
    with pytest.raises(RolloutError, match=r"^service: "):
        begin(ledger, "one", name)
    if name:
        with pytest.raises(RolloutError, match=r"^service: "):
            ledger.read(name)
    assert not any(file.is_file() for file in tmp_path.rglob("*"))


def test_a_disk_that_refuses_is_named(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(ledger_module, "write_whole", full)
    with pytest.raises(RolloutError, match="one.json: No space left on device .*free some space there"):
        begin(ledger)


def test_steps_at_the_same_time_are_all_recorded(ledger: Ledger) -> None:
    begin(ledger)
    names = [f"s{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: ledger.step("notes", "one", name, "done"), names))
    assert sorted(step["name"] for step in ledger.read("notes")["records"][0]["steps"]) == sorted(names)


def test_check_mode_writes_nothing_and_tells_the_truth(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    dry = Ledger(tmp_path, clock=clock, dry_run=True)
    begun = begin(dry)
    assert begun.changed and not begun.resumes and begun.record
    assert [record["id"] for record in begun.as_result()["unfinished"]] == ["one"]
    for outcome in (dry.step("notes", "one", "start", "started"), dry.end("notes", "one", "done")):
        assert outcome.changed and outcome.record is None
    assert list(tmp_path.iterdir()) == []

    begin(ledger)
    ledger.step("notes", "one", "start", "done")
    written = path(tmp_path).read_text()
    assert begin(dry).resumes
    assert not dry.step("notes", "one", "start", "done").changed
    ended = dry.end("notes", "one", "done")
    assert ended.changed and ended.record and ended.record.outcome == "done"
    assert ended.as_result()["unfinished"] == []
    assert path(tmp_path).read_text() == written
    path(tmp_path).write_text("damaged")
    assert begin(dry).changed
    assert path(tmp_path).read_text() == "damaged"


@pytest.mark.parametrize(
    "message",
    [
        "cannot connect to postgresql://notes:hunter2@db.example.com/notes",
        "cannot connect to redis://:hunter2@cache/0",
        "NOTES_DB_PASSWORD=hunter2 is refused",
        'config: {"encryption_key": "hunter2", "port": 1}',
        "api-key: 'hunter2'",
        "Authorization: Bearer hunter2",
    ],
)
def test_no_secret_is_recorded(tmp_path: Path, ledger: Ledger, message: str) -> None:
    begin(ledger)
    ledger.step("notes", "one", "start", "failed", message=message)
    ledger.end("notes", "one", "failed", message)
    text = path(tmp_path).read_text()
    assert "hunter2" not in text
    assert "***" in text


def test_an_ordinary_message_is_left_alone() -> None:
    message = (
        "http://127.0.0.1:8080/health answered 503 at 14:50:01; the unit notes-server@green.service crashed 3 times"
    )
    assert plain(message) == message


def test_of_a_long_message_its_end_is_kept(ledger: Ledger) -> None:
    begin(ledger)
    record = ledger.end("notes", "one", "failed", "x" * 5000 + "the cause").record
    assert record
    assert len(record.message) == LENGTH
    assert record.message.startswith("... x") and record.message.endswith("the cause")
    assert not ledger.end("notes", "one", "failed", "x" * 5000 + "the cause").changed
