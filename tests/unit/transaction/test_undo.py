"""Whatever fails, and whenever a run is killed: the host is as it was before."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction import engine, journal, recover, swap
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError

from tests.unit.transaction.host import FakeHost, FakeUnit

UNIT = "/etc/systemd/system/old.service"
BEFORE: dict[str, Any] = {
    "files": [
        {"path": "/etc/app/kept", "content": "kept 1\n", "mode": "0640"},
        {"path": "/etc/app/secret", "secret_content": "hunter2-before\n", "mode": "0600"},
        {"path": "/etc/app/gone", "content": "gone\n"},
        {"path": "/etc/app/blue", "link": "releases/1"},
        {"path": "/etc/app/green", "link": "releases/1"},
        {"path": UNIT, "content": "[Service]\n"},
    ],
    "units": [{"name": "app", "on_change": "reload"}, {"name": "old", "enabled": True}],
}
AFTER: dict[str, Any] = {
    "files": [
        {"path": "/etc/app/kept", "content": "kept 2\n", "mode": "0600"},
        {"path": "/etc/app/secret", "secret_content": "hunter2-after\n", "mode": "0600"},
        {"path": "/etc/app/new/file", "content": "new\n"},
        {"path": "/etc/app/link", "content": "was a link\n"},
        {"path": "/etc/app/blue", "link": "releases/2"},
        {"path": "/etc/app/current", "link": "/opt/app/2"},
    ],
    "directories": [{"path": "/etc/app", "mode": "0750"}],
    "validate": [["check", "-t"]],
    "commands": [["apply", "now"]],
    "units": [{"name": "app", "on_change": "reload"}],
    "probes": [{"kind": "http"}],
}


@pytest.fixture
def running(host: FakeHost) -> FakeHost:
    host.units["app.service"] = FakeUnit("active", "enabled")
    host.apply(**BEFORE)
    host.at("/etc/app/link").symlink_to("/etc/hosts")
    host.calls.clear()
    return host


def refuse(word: str) -> Callable[[tuple[str, ...]], str | None]:
    """The first command that holds this word fails."""
    left = [word]

    def answer(argv: tuple[str, ...]) -> str | None:
        if left and left[0] in " ".join(argv):
            left.pop()
            return "line 3: unexpected hunter2-after"
        return None

    return answer


def test_it_works_when_nothing_fails(running: FakeHost) -> None:
    outcome = running.apply(**AFTER)
    assert outcome.removed_files == ["/etc/app/gone", "/etc/app/green", UNIT]
    assert running.steps == ["stop old.service", "disable old.service", "daemon-reload", "reload app.service"]
    assert ("apply", "now") in running.calls and running.leftovers == []
    assert not running.apply(**AFTER).changed


def test_validator_rejects_before_anything_is_live(running: FakeHost) -> None:
    before, running.refuse = running.tree("/"), refuse("check -t")
    with pytest.raises(TransactionError) as caught:
        running.apply(**AFTER)
    assert caught.value.phase == "validate"
    assert "check -t rejects the candidate" in str(caught.value) and "line 3: unexpected" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert running.tree("/") == before and running.steps == []


@pytest.mark.parametrize("check", [True, False])
def test_missing_validator(running: FakeHost, check: bool) -> None:
    running.installed.discard("check")
    if check:
        outcome = running.apply(**AFTER, check=True)
        assert outcome.validated is False and outcome.warnings == ["Not validated: check is not installed (yet)"]
    else:
        with pytest.raises(TransactionError, match="cannot be validated: check is not installed"):
            running.apply(**AFTER)
    assert running.validated == []


@pytest.mark.parametrize("check", [True, False])
def test_missing_requirement(running: FakeHost, check: bool) -> None:
    params = {**AFTER, "requires": ["/etc/tls/cert.pem"]}
    if check:
        assert running.apply(**params, check=True).validated is False
    else:
        with pytest.raises(TransactionError, match=r"/etc/tls/cert\.pem does not exist"):
            running.apply(**params)
    running.put("/etc/tls/cert.pem", "x")
    assert running.apply(**params).validated


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("stop -- old.service", "apply"),
        ("daemon-reload", "apply"),
        ("apply now", "apply"),
        ("reload -- app.service", "apply"),
    ],
)
def test_failure_after_the_swap_brings_everything_back(running: FakeHost, word: str, phase: str) -> None:
    before, running.refuse = running.tree("/"), refuse(word)
    with pytest.raises(TransactionError) as caught:
        running.apply(**AFTER)
    assert caught.value.phase == phase and caught.value.facts["rolled_back"]
    assert "unexpected (secret)" in str(caught.value) and "hunter2" not in str(caught.value)
    assert running.tree("/") == before and running.leftovers == []
    assert running.units["old.service"].active == "active" and running.units["old.service"].enabled == "enabled"
    assert running.units["app.service"].active == "active"


def test_failed_probe_brings_everything_back_and_is_asked_again(running: FakeHost) -> None:
    before, asked = running.tree("/"), []

    def probe(_options: object) -> tuple[bool, str]:
        asked.append(running.at("/etc/app/kept").read_text())
        return asked[-1] == "kept 1\n", "HTTP 502"

    running.probe = probe
    with pytest.raises(TransactionError, match="HTTP 502(.|\n)*The probe holds with them") as caught:
        running.apply(**AFTER)
    assert caught.value.phase == "probe" and asked == ["kept 2\n", "kept 1\n"]
    assert running.tree("/") == before
    # What the old configuration is read by, reads it again.
    assert running.steps.count("reload app.service") == 2
    assert running.calls.count(("apply", "now")) == 2


def test_unit_that_crashes_again_and_again_is_a_failure_with_its_journal(running: FakeHost) -> None:
    unit = running.units["app.service"] = FakeUnit("active", "enabled", kind="simple", restarts=0)
    seen: list[str] = []

    def crash(argv: tuple[str, ...]) -> None:
        if "restart" in argv:
            seen.append("restart")
            unit.restarts = 2 if len(seen) == 1 else 0

    running.refuse = crash
    params = {**AFTER, "units": [{"name": "app", "on_change": "restart"}]}
    with pytest.raises(TransactionError, match=r"app\.service ends again and again(.|\n)*said: no such port") as caught:
        running.apply(**params)
    assert caught.value.facts["unit"] == "app.service" and seen == ["restart", "restart"]


def test_one_crash_at_start_is_systemds_to_retry(running: FakeHost) -> None:
    unit = running.units["app.service"] = FakeUnit("active", "enabled", kind="simple")

    def crash_once(argv: tuple[str, ...]) -> None:
        unit.restarts = 1 if "restart" in argv else unit.restarts

    running.refuse = crash_once
    assert running.apply(**{**AFTER, "units": [{"name": "app", "on_change": "restart"}]}).changed


@pytest.mark.parametrize("writes", range(6))
def test_full_disk_leaves_everything_as_it_was(running: FakeHost, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    before, left = running.tree("/"), [writes]
    write = journal.write_durably

    def full(path: Path, *arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0 and path.suffix != ".lock":
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, *arguments)

    for module in (journal, swap):
        monkeypatch.setattr(module, "write_durably", full)
    with pytest.raises(TransactionError, match="No space left on device(.|\n)*former files and running state are back"):
        running.apply(**AFTER)
    assert running.tree("/") == before and running.leftovers == []


class Killed(BaseException):
    """SIGKILL: nothing of ours runs any more, not even the way back."""


def _steps_of(host: FakeHost, monkeypatch: pytest.MonkeyPatch, die_at: int) -> int:
    """Run AFTER, and die at the n-th call that changes anything. Returns how many such calls there were."""
    count = [0]

    def step(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == die_at:
                raise Killed
            return function(*arguments, **options)

        return counted

    with monkeypatch.context() as patch:
        for name in ("link", "symlink", "replace", "unlink", "mkdir", "rmdir", "chmod"):
            patch.setattr(os, name, step(getattr(os, name)))
        # The way back does not run in a process that was killed.
        patch.setattr(engine.Transaction, "_undo", lambda *_arguments: None)
        patch.setattr(host, "refuse", step(lambda _argv: None))
        try:
            host.apply(**AFTER)
        except Killed:
            return count[0]
    return count[0]


def test_killed_at_any_step_the_next_run_repairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fresh(name: str) -> FakeHost:
        host = FakeHost(tmp_path / name)
        host.at("/etc").mkdir(parents=True)
        host.units["app.service"] = FakeUnit("active", "enabled")
        host.apply(**BEFORE)
        host.at("/etc/app/link").symlink_to("/etc/hosts")
        return host

    steps = _steps_of(fresh("whole"), monkeypatch, -1)
    assert steps > 30
    for die_at in range(1, steps + 1):
        host = fresh(str(die_at))
        before = host.tree()
        units = {name: (unit.active, unit.enabled) for name, unit in host.units.items()}
        _steps_of(host, monkeypatch, die_at)

        # Another set's run is enough to put back what was there, or to find that all had been done.
        host.apply(name="bystander", files=[])
        done = "kept 2" in host.at("/etc/app/kept").read_text()
        if not done:
            assert host.tree() == before, f"killed at step {die_at}"
            assert {name: (unit.active, unit.enabled) for name, unit in host.units.items()} == units
        assert host.leftovers == [], f"killed at step {die_at}"

        host.apply(**AFTER)
        assert host.tree()["/etc/app/kept"] == ("kept 2\n", 0o600) and UNIT not in host.tree()
        assert not host.apply(**AFTER).changed


def test_recovery_that_cannot_be_done_keeps_the_journal(running: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    running.refuse = refuse("apply now")
    before = running.tree()

    def denied(*_arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/etc/app/kept")

    with monkeypatch.context() as patch:
        patch.setattr(recover, "restore", denied)
        with pytest.raises(TransactionError, match="could NOT be brought back(.|\n)*Read-only") as caught:
            running.apply(**AFTER)
        assert caught.value.facts["rolled_back"] is False
        with pytest.raises(TransactionError, match="interrupted run of set could not be undone") as again:
            running.apply(**AFTER)
        assert again.value.phase == "recover"
    running.refuse = lambda _argv: None
    assert "was interrupted" in running.apply(**AFTER, check=True).warnings[0]
    assert running.apply(name="bystander").recovered == ["set"]
    assert running.tree() == before


def test_copies_are_kept_where_links_cannot_be(running: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """/var/lib on another file system than /etc."""

    def elsewhere(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", elsewhere)
    before, running.refuse = running.tree("/"), refuse("apply now")
    with pytest.raises(TransactionError):
        running.apply(**AFTER)
    assert running.tree("/") == before


def test_killed_while_it_repairs_the_next_one_repairs(running: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    before = running.tree()
    running.refuse = refuse("apply now")
    with monkeypatch.context() as patch:
        patch.setattr(engine.Transaction, "_undo", lambda *_arguments: None)
        with pytest.raises(TransactionError):
            running.apply(**AFTER)
    running.refuse = lambda _argv: None
    replace, left = os.replace, [2]

    def dies(*arguments: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        replace(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(Killed):
            running.apply(name="bystander")
    assert running.tree() != before
    assert running.apply(name="bystander").recovered == ["set"]
    assert running.tree() == before and running.leftovers == []
