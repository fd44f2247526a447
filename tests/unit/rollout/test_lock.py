"""The lock on the fleet: one holder, whatever happens, and messages that help whoever has to wait."""

from __future__ import annotations

import json
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout import lock as lock_module
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.files import RolloutError
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.lock import PATH, FleetLock, Outcome

AT = datetime(2026, 11, 21, 14, 50, tzinfo=UTC)
CONTROLLER = {"machine": "m", "host": "bridge", "boot": "b", "namespace": "n", "pid": 4711, "started": "99"}


def hold(root: Path, who: str, **options: Any) -> Outcome:
    """Each one's token is the name, so that a second call is of the same run."""
    options = {"token": who, "operator": f"{who}@bridge", "what": f"upgrade by {who}", **options}
    return FleetLock(root, clock=lambda: AT).hold(controller=CONTROLLER, **options)


def holder(root: Path) -> str:
    return str(json.loads((root / PATH[1:]).read_text())["operator"])


def test_the_first_gets_it_and_keeps_it(tmp_path: Path) -> None:
    assert hold(tmp_path, "ada").changed
    again = hold(tmp_path, "ada", what="something else")
    assert not again.changed
    assert again.holder and again.holder.what == "upgrade by ada"
    with pytest.raises(RolloutError):
        hold(tmp_path, "bob")
    assert holder(tmp_path) == "ada@bridge"


def test_what_lies_there(tmp_path: Path) -> None:
    hold(tmp_path, "ada")
    path = tmp_path / PATH[1:]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == ["fleet.lock"]
    assert json.loads(path.read_text()) == {
        "token": "ada",
        "operator": "ada@bridge",
        "what": "upgrade by ada",
        "since": "2026-11-21T14:50:00.000Z",
        "controller": CONTROLLER,
    }


def test_the_message_says_who_since_when_what_for_and_what_to_do(tmp_path: Path) -> None:
    hold(tmp_path, "ada")
    with pytest.raises(RolloutError) as failure:
        hold(tmp_path, "bob")
    assert str(failure.value) == (
        "The fleet is locked by ada@bridge, since 2026-11-21T14:50:00.000Z, for: upgrade by ada (process 4711 on bridge). "
        "Wait until that run has ended. If it is dead (its machine is gone, nobody will go on with it), take its lock over "
        "with: -e lock_takeover=ada@bridge"
    )
    assert failure.value.facts["holder"]["token"] == "ada"


def test_taken_over_by_the_exact_name(tmp_path: Path) -> None:
    hold(tmp_path, "ada")
    for name in ("ada", "ada@bridge ", "Ada@bridge", "bob@bridge"):
        with pytest.raises(RolloutError, match=f"lock_takeover={name} names somebody else, so nothing was taken over"):
            hold(tmp_path, "bob", takeover=name)
    assert holder(tmp_path) == "ada@bridge"
    outcome = hold(tmp_path, "bob", takeover="ada@bridge")
    assert outcome.changed
    assert outcome.as_result()["taken_over"]["operator"] == "ada@bridge"
    assert holder(tmp_path) == "bob@bridge"
    with pytest.raises(RolloutError):
        hold(tmp_path, "ada")


def test_a_name_with_spaces_can_be_pasted(tmp_path: Path) -> None:
    hold(tmp_path, "ada", operator="Ada L")
    with pytest.raises(RolloutError, match="-e 'lock_takeover=Ada L'$"):
        hold(tmp_path, "bob")


def test_the_lock_of_a_dead_run_is_taken_over_and_no_other(tmp_path: Path) -> None:
    hold(tmp_path, "ada")
    with pytest.raises(RolloutError):
        hold(tmp_path, "bob", ended="carol")
    taken = hold(tmp_path, "bob", ended="ada")
    assert taken.former and taken.former.token == "ada"
    # It was bob who came first, so what carol knows of ada's run is of no use any more.
    with pytest.raises(RolloutError, match="locked by bob@bridge"):
        hold(tmp_path, "carol", ended="ada")


def test_names_of_dead_runs_are_not_needed_where_it_is_free(tmp_path: Path) -> None:
    outcome = hold(tmp_path, "bob", ended="ada", takeover="ada@bridge")
    assert outcome.changed and outcome.former is None


def test_only_the_own_is_released(tmp_path: Path) -> None:
    lock = FleetLock(tmp_path)
    assert lock.release(token="ada") == Outcome(changed=False, holder=None)
    assert not (tmp_path / "var").exists()
    hold(tmp_path, "ada")
    left = lock.release(token="bob")
    assert not left.changed
    assert left.holder and left.holder.operator == "ada@bridge"
    assert lock.release(token="ada") == Outcome(changed=True, holder=None)
    assert not lock.release(token="ada").changed
    assert hold(tmp_path, "bob").changed


def test_check_mode_changes_nothing_and_tells_the_truth(tmp_path: Path) -> None:
    outcome = hold(tmp_path, "ada", dry_run=True)
    assert outcome.changed and outcome.holder and outcome.holder.operator == "ada@bridge"
    assert list(tmp_path.iterdir()) == []
    hold(tmp_path, "ada")
    assert not hold(tmp_path, "ada", dry_run=True).changed
    with pytest.raises(RolloutError):
        hold(tmp_path, "bob", dry_run=True)
    assert hold(tmp_path, "bob", takeover="ada@bridge", dry_run=True).former
    assert FleetLock(tmp_path).release(token="ada", dry_run=True).changed
    assert holder(tmp_path) == "ada@bridge"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\0\0\0",
        '{"token": 1}',
        '{"token": "t", "operator": "", "what": "w", "since": "s"}',
        "[" * 100000,
    ],
)
def test_a_damaged_lock_is_nobodys_to_take(tmp_path: Path, text: str) -> None:
    hold(tmp_path, "ada")
    (tmp_path / PATH[1:]).write_text(text)
    with pytest.raises(RolloutError, match="cannot be read .* remove the file on this host"):
        hold(tmp_path, "bob", takeover="ada@bridge")
    assert (tmp_path / PATH[1:]).read_text() == text


def test_a_run_that_is_killed_while_it_writes_leaves_no_half_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PATH[1:]).parent.mkdir(parents=True)
    half = (tmp_path / PATH[1:]).with_name(".fleet.lock.new")
    half.write_text('{"token": "dea')
    assert hold(tmp_path, "ada").changed
    assert not half.exists()


def test_a_disk_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(lock_module, "write_whole", full)
    with pytest.raises(RolloutError, match="fleet.lock: No space left on device .*free some space there"):
        hold(tmp_path, "ada")


def attempt(root: str, who: str, options: dict[str, str]) -> bool:
    try:
        return hold(Path(root), who, **options).changed
    except RolloutError:
        return False


def test_of_many_processes_one_gets_it(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(12)]
    with multiprocessing.get_context("fork").Pool(6) as pool:
        for rounds in range(5):
            root = str(tmp_path / str(rounds))
            got = pool.starmap(attempt, [(root, name, {}) for name in names], chunksize=1)
            assert got.count(True) == 1
            assert holder(Path(root)) == f"{names[got.index(True)]}@bridge"


@pytest.mark.parametrize("by", ["ended", "takeover"])
def test_of_many_that_take_over_at_once_one_gets_it(tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"t{number}" for number in range(8)]
    hold(tmp_path, "dead")
    together = threading.Barrier(len(names))

    def take(name: str) -> bool:
        together.wait()
        return attempt(str(tmp_path), name, {by: "dead" if by == "ended" else "dead@bridge"})

    with ThreadPoolExecutor(len(names)) as pool:
        got = list(pool.map(take, names))
    assert got.count(True) == 1
    assert holder(tmp_path) == f"{names[got.index(True)]}@bridge"


def test_between_look_and_write_nobody_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that costs a lock: both see it free, both write."""
    seen, go_on = threading.Event(), threading.Event()
    write = lock_module.write_whole

    def slowly(path: Path, data: Any) -> None:
        if data["token"] == "slow":
            seen.set()
            assert go_on.wait(10)
        write(path, data)

    monkeypatch.setattr(lock_module, "write_whole", slowly)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(attempt, str(tmp_path), "slow", {})
        assert seen.wait(10)
        quick = pool.submit(attempt, str(tmp_path), "quick", {})
        with pytest.raises(TimeoutError):
            quick.result(0.2)
        go_on.set()
        assert (slow.result(10), quick.result(10)) == (True, False)
    assert holder(tmp_path) == "slow@bridge"
