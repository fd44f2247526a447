"""Which run this is, and which other run is known to live no more."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.action import fleet_lock
from ansible_collections.selfhost.fleet.plugins.plugin_utils.controller import (
    OUTERMOST,
    Controller,
    controlling_process,
    operator,
)

BOOTED = 1_795_000_000
BEFORE_BOOT, AFTER_BOOT = "2026-11-18T11:00:00.000Z", "2026-11-18T12:00:00.000Z"
CONTAINER = "pid:[4026532999]"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def process(proc: Path, pid: int, started: int, state: str = "S") -> None:
    write(proc / str(pid) / "stat", f"{pid} (a (b) c) {state} {'1 ' * 18}{started} 5 6\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    write(folder / "sys/kernel/random/boot_id", "boot-1\n")
    write(folder / "stat", f"cpu 1 2\nbtime {BOOTED}\nprocesses 9\n")
    (folder / "self/ns").mkdir(parents=True)
    (folder / "self/ns/pid").symlink_to(OUTERMOST)
    process(folder, 100, 5000)
    process(folder, 200, 7000)
    write(tmp_path / "etc/machine-id", "0123456789abcdef\n")
    return folder


@pytest.fixture
def here(proc: Path) -> Controller:
    return Controller.here(proc=proc, etc=proc.parent / "etc", pid=100)


def other(here: Controller, **changes: Any) -> dict[str, Any]:
    return asdict(replace(here, **{"pid": 200, "started": "7000", **changes}))


def gone(pid: int, number: int) -> None:
    raise ProcessLookupError


def of_another(pid: int, number: int) -> None:
    raise PermissionError


def dead(here: Controller, holder: dict[str, Any], proc: Path, *, since: str = AFTER_BOOT, signal: Any = gone) -> bool:
    return here.knows_dead(holder, since, proc=proc, signal=signal)


def test_what_a_run_says_of_itself(here: Controller) -> None:
    assert (here.pid, here.started, here.boot, here.namespace) == (100, "5000", "boot-1", OUTERMOST)
    assert len(here.machine) == 32
    assert here.machine not in ("", "0123456789abcdef")  # the number itself stays on its machine
    assert here.as_option()["host"] == os.uname().nodename


def test_a_token_is_of_one_run(here: Controller) -> None:
    assert here.token == replace(here).token
    others = {
        replace(here, **change).token for change in ({"pid": 101}, {"started": "5001"}, {"boot": "b"}, {"host": "h"})
    }
    assert len(others | {here.token}) == 5


def test_a_run_that_lives_is_not_dead(here: Controller, proc: Path) -> None:
    assert not dead(here, other(here), proc)


@pytest.mark.parametrize("changes", [{"pid": 300}, {"started": "6999"}])
def test_a_process_that_is_gone_or_another_one(here: Controller, proc: Path, changes: dict[str, Any]) -> None:
    assert dead(here, other(here, **changes), proc)


def test_a_zombie_is_dead(here: Controller, proc: Path) -> None:
    process(proc, 200, 7000, state="Z")
    assert dead(here, other(here), proc)


def test_a_process_that_is_hidden_is_not_dead(here: Controller, proc: Path) -> None:
    hidden = other(here, pid=300)
    assert not dead(here, hidden, proc, signal=of_another)
    assert not dead(here, hidden, proc, signal=lambda pid, number: None)


@pytest.mark.parametrize(
    "changes", [{"machine": "other"}, {"host": "other"}, {"namespace": CONTAINER}, {"started": ""}, {"boot": ""}]
)
def test_of_another_controller_nothing_is_known(here: Controller, proc: Path, changes: dict[str, Any]) -> None:
    assert not dead(here, other(here, **{"pid": 300, **changes}), proc)


def test_a_controller_that_tells_nothing_of_itself(tmp_path: Path) -> None:
    nothing = Controller.here(proc=tmp_path, etc=tmp_path, pid=100)
    assert (nothing.machine, nothing.started) == ("", "")
    assert not nothing.knows_dead(asdict(replace(nothing, pid=300)), AFTER_BOOT, proc=tmp_path, signal=gone)


def test_what_ran_before_the_machine_was_booted_is_dead(here: Controller, proc: Path) -> None:
    former = other(here, boot="boot-0")
    assert dead(here, former, proc, since=BEFORE_BOOT)
    # Two clones with one machine-id and one name.
    assert not dead(here, former, proc, since=AFTER_BOOT)


def test_without_a_machine_id_only_this_boot_is_known(here: Controller, proc: Path) -> None:
    nameless = replace(here, machine="")
    assert dead(nameless, other(nameless, pid=300), proc)
    assert not dead(nameless, other(nameless, boot="boot-0"), proc, since=BEFORE_BOOT)


def test_a_container_elsewhere_is_not_a_former_boot(here: Controller, proc: Path) -> None:
    inside = replace(here, namespace=CONTAINER)
    assert not dead(inside, other(inside, boot="boot-0"), proc, since=BEFORE_BOOT)
    assert not dead(here, other(here, boot="boot-0", namespace=CONTAINER), proc, since=BEFORE_BOOT)
    # Within one and the same container it is as anywhere.
    assert dead(inside, other(inside, pid=300), proc)


@pytest.mark.parametrize(
    ("holder", "since"),
    [({}, AFTER_BOOT), ({"pid": "x"}, AFTER_BOOT), ({"boot": "b"}, "last week"), ({"boot": "b"}, "")],
)
def test_a_holder_that_makes_no_sense_lives(here: Controller, proc: Path, holder: dict[str, Any], since: str) -> None:
    assert not dead(here, {**other(here), **holder} if holder else {}, proc, since=since)


def test_real_processes() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        run = Controller.here(pid=child.pid)
        me = replace(Controller.here(), machine="m")
        holder = {**asdict(run), "machine": "m"}
        assert run.started
        assert not me.knows_dead(holder, AFTER_BOOT)
        assert me.knows_dead({**holder, "started": "1"}, AFTER_BOOT)
        child.kill()
    assert me.knows_dead(holder, AFTER_BOOT)


def test_the_process_of_the_run_is_the_one_that_forks_the_workers() -> None:
    """Also when it has been killed meanwhile, and the worker has another parent."""

    def worker(pipe: Connection) -> None:
        os.setsid()
        pipe.send((controlling_process(), Controller.here().token))

    context = multiprocessing.get_context("fork")
    tokens = set()
    for _number in range(2):
        ours, theirs = context.Pipe()
        child = context.Process(target=worker, args=(theirs,))
        child.start()
        pid, token = ours.recv()
        child.join()
        assert pid == os.getpid()
        tokens.add(token)
    assert tokens == {Controller.here().token}


def test_the_operator_is_who_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "ada")
    assert operator() == f"ada@{os.uname().nodename}"
    monkeypatch.delenv("SUDO_USER")
    assert operator() == f"root@{os.uname().nodename}"


class Calls:
    """The host's half, as the action plugin sees it: refuses until it is told that the holder's run has ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, holder: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.made: list[dict[str, Any]] = []
        self._holder = {"token": "theirs", "operator": "bob@bridge", "since": AFTER_BOOT, "controller": holder}
        monkeypatch.setattr(fleet_lock.ActionBase, "run", lambda *_: {})
        self._action = object.__new__(fleet_lock.ActionModule)
        self._action._task = SimpleNamespace(args=arguments)
        self._action._execute_module = self._answer

    def _answer(self, *, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        self.made.append(module_args)
        if module_args.get("ended") == self._holder["token"]:
            return {"changed": True, "taken_over": self._holder}
        return {"failed": True, "msg": "locked", "holder": self._holder}

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = self._action.run(task_vars={})
        return result


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Controller:
    """This process, on a machine that tells its machine-id."""
    real = replace(Controller.here(), machine="m", boot="b", namespace=CONTAINER)
    monkeypatch.setattr(fleet_lock.Controller, "here", lambda: real)
    return real


def test_a_killed_run_of_this_controller_needs_no_person(monkeypatch: pytest.MonkeyPatch, known: Controller) -> None:
    calls = Calls(monkeypatch, asdict(replace(known, started="1")), {"what": "upgrade"})
    assert calls.result()["taken_over"]["operator"] == "bob@bridge"
    first, second = calls.made
    assert first == {"what": "upgrade", "token": known.token, "operator": operator(), "controller": asdict(known)}
    assert second == {**first, "ended": "theirs"}


def test_any_other_run_does(monkeypatch: pytest.MonkeyPatch, known: Controller) -> None:
    for holder in (asdict(known), asdict(replace(known, started="1", machine="other")), {}):
        calls = Calls(monkeypatch, holder, {"what": "upgrade"})
        assert calls.result()["msg"] == "locked"
        assert len(calls.made) == 1
