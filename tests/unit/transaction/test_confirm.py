"""A change that waits to be confirmed: kept, taken back by hand, or by the host itself."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.way_back import PROGRAM, packed

from tests.unit.transaction.host import FakeHost, FakeUnit

FILE = "/etc/app/main.conf"
SET = {
    "files": [{"path": FILE, "content": "new\n"}],
    "units": [{"name": "app", "on_change": "reload"}],
    "confirm_within": 30,
}


@pytest.fixture
def running(host: FakeHost) -> FakeHost:
    host.units["app.service"] = FakeUnit("active", "enabled")
    host.apply(**{**SET, "files": [{"path": FILE, "content": "old\n"}], "confirm_within": 0})
    host.calls.clear()
    # No timer is armed yet: that is what systemd answers.
    host.refuse = lambda argv: "" if argv[:2] == ("systemctl", "is-active") else None
    return host


def arming(host: FakeHost) -> list[int]:
    return [index for index, call in enumerate(host.calls) if call[0] == "systemd-run"]


def test_the_way_back_is_armed_before_anything_is_live(running: FakeHost) -> None:
    at_arming: list[str] = []

    def look(argv: tuple[str, ...]) -> str | None:
        if argv[0] == "systemd-run":
            at_arming.append(running.at(FILE).read_text())
            assert "--on-active=30s" in argv and Path(argv[-1]).name == PROGRAM and Path(argv[-1]).exists()
        return "" if argv[:2] == ("systemctl", "is-active") else None

    running.refuse = look
    outcome = running.apply(**SET)
    assert outcome.pending and at_arming == ["old\n"]
    assert running.at(FILE).read_text() == "new\n" and running.leftovers != []


def test_confirmed_it_stays(running: FakeHost) -> None:
    change = running.apply(**SET).change
    assert running.transaction(**SET).confirm(change).changed
    assert running.at(FILE).read_text() == "new\n" and running.leftovers == []
    assert not running.apply(**SET).changed


def test_taken_back_it_is_as_before(running: FakeHost) -> None:
    before = running.tree("/")
    change = running.apply(**SET).change
    running.calls.clear()
    assert running.transaction(**SET).take_back(change).recovered == ["set"]
    assert running.tree("/") == before and running.steps == ["reload app.service"]


def test_too_late(running: FakeHost) -> None:
    change = running.apply(**SET).change
    running.transaction(**SET).take_back(change)
    with pytest.raises(TransactionError, match="taken back before it was confirmed; the former state is in force"):
        running.transaction(**SET).confirm(change)


def test_what_another_run_left_behind_neither_keeps_nor_undoes_a_change(running: FakeHost) -> None:
    """A worker of a killed run comes back when its own change is long gone."""
    former, change = running.apply(**SET).change, running.apply(**SET).change
    with pytest.raises(TransactionError, match="that of another run waits now"):
        running.transaction(**SET).confirm(former)
    assert running.transaction(**SET).take_back(former).recovered == []
    assert running.at(FILE).read_text() == "new\n"
    assert running.transaction(**SET).confirm(change).changed


def test_nobody_came_and_the_next_run_undoes_it_first(running: FakeHost) -> None:
    running.apply(**SET)
    assert running.apply(**SET).recovered == ["set"]


def test_without_a_way_back_nothing_is_changed(running: FakeHost) -> None:
    before = running.tree("/")
    running.refuse = lambda argv: "no bus" if argv[0] == "systemd-run" or "is-active" in argv else None
    with pytest.raises(TransactionError, match="its way back cannot be armed: no bus"):
        running.apply(**SET)
    assert running.tree("/") == before


def test_nothing_to_change_needs_no_confirmation(running: FakeHost) -> None:
    running.transaction(**SET).confirm(running.apply(**SET).change)
    running.calls.clear()
    assert not running.apply(**SET).pending and arming(running) == []


def test_the_program_needs_nothing_but_python(tmp_path: Path) -> None:
    data = packed("set")
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert len(names) == len(set(names))
    program = tmp_path / PROGRAM
    program.write_bytes(data)
    # Its imports, without what it does: that needs root, and is seen on a real host.
    module = "ansible_collections.selfhost.fleet.plugins.module_utils.transaction.way_back"
    script = f"import sys; sys.path.insert(0, sys.argv[1]); import {module} as m; print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(program)], capture_output=True, text=True, check=True
    )
    assert str(program) in done.stdout
