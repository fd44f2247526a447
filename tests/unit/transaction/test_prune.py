"""Sets that a host no longer has: what goes, what stays, and back from every failure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction import engine
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import Journal
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.manifest import recorded
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.prune import Prune, Pruned
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.units import Units

from tests.unit.transaction.host import FakeHost, FakeUnit

MANIFESTS = "/var/lib/selfhost/config"
SYSTEMS = {"/etc/nginx", "/etc/systemd", "/etc/systemd/system"}  # never removed, even where a set made them
NGINX: dict[str, Any] = {
    "name": "edge",
    "files": [
        {"path": "/etc/nginx/nginx.conf", "content": "events {}\n"},
        {"path": "/etc/nginx/users", "secret_content": "hunter2\n", "mode": "0600"},
        {"path": "/etc/systemd/system/nginx.service.d/x.conf", "content": "[Service]\n"},
    ],
    "units": [{"name": "nginx", "on_change": "reload", "enabled": True}],
}
SERVICE: dict[str, Any] = {
    "name": "service",
    "files": [
        {"path": "/etc/systemd/system/app@.service", "content": "[Service]\n"},
        {"path": "/etc/app/env", "content": "A=1\n"},
    ],
    "units": [{"name": "app@blue", "enabled": True}],
}
BASELINE: dict[str, Any] = {"name": "baseline", "files": [{"path": "/etc/base.conf", "content": "b\n"}]}


@pytest.fixture
def full(host: FakeHost) -> FakeHost:
    host.units["nginx.service"] = FakeUnit("active", "enabled")
    host.put("/etc/nginx/mime.types", "types {}\n")
    for params in (BASELINE, SERVICE, NGINX):
        host.apply(**params)
    host.calls.clear()
    return host


def pruning(host: FakeHost, keep: Collection[str], among: Sequence[str] | None = None) -> Prune:
    seconds = count()
    units = Units(host, timeout=5, sleep=lambda _seconds: None, clock=lambda: float(next(seconds)))
    return Prune(keep=keep, among=among, runner=host, timeout=5, root=host.root, units=units)


def prune(
    host: FakeHost, keep: Collection[str] = ("baseline",), among: Sequence[str] | None = None, *, check: bool = False
) -> Pruned:
    return pruning(host, keep, among).run(check=check)


def test_what_is_not_kept_goes_and_then_nothing_changes(full: FakeHost) -> None:
    outcome = prune(full)
    assert outcome.changed and outcome.pruned == ["edge", "service"]
    assert set(full.tree()) == {"/etc/base.conf", "/etc/nginx/mime.types", *SYSTEMS}
    assert full.units["nginx.service"] == FakeUnit("inactive", "disabled")
    assert full.units["app@blue.service"].active == "inactive"
    assert outcome.units == {"nginx.service": ["stop", "disable"], "app@blue.service": ["stop", "disable"]}
    assert recorded(full.root) == ["baseline"] and full.leftovers == []

    full.calls.clear()
    assert prune(full) == Pruned() and full.calls == []


def test_units_are_stopped_while_their_files_are_there_and_forgotten_after(full: FakeHost) -> None:
    seen: list[bool] = []

    def look(argv: tuple[str, ...]) -> None:
        if argv[:3] == ("systemctl", "--quiet", "stop"):
            seen.append(full.at("/etc/nginx/nginx.conf").exists())

    full.refuse = look
    prune(full, keep=["baseline", "service"])
    assert seen == [True]
    assert full.steps == ["stop nginx.service", "disable nginx.service", "daemon-reload"]


def test_check_mode_says_the_same_and_touches_nothing(full: FakeHost) -> None:
    before = full.tree("/")
    expected = prune(full, check=True)
    assert full.tree("/") == before and full.steps == []
    assert prune(full) == expected
    shown = "".join(entry["before"] + entry["after"] for entry in expected.diff)
    assert "events {}" in shown and "enabled: true\nstate: active\n" in shown and "unit: removed" in shown
    assert "hunter2" not in shown and "(secret content, before)" in shown


def test_only_sets_among_are_looked_at_the_last_one_first(full: FakeHost) -> None:
    full.apply(name="mine", files=[{"path": "/etc/mine", "content": "m\n"}])
    order = ["baseline", "edge", "service"]
    assert prune(full, among=order, check=True).pruned == ["service", "edge"]
    assert prune(full, among=order).pruned == ["service", "edge"]
    assert full.at("/etc/mine").exists() and recorded(full.root) == ["baseline", "mine"]


def test_database_is_never_taken_away_and_every_run_says_so(full: FakeHost) -> None:
    unit = full.units["postgresql@17-main.service"] = FakeUnit("active", "enabled")
    hba = {"path": "/etc/postgresql/pg_hba.conf", "content": "local\n"}
    full.apply(name="postgres", files=[hba], units=[{"name": "postgresql@17-main", "enabled": None}])
    prune(full, keep=["baseline", "postgres"])
    before = full.tree("/")
    full.calls.clear()
    for _run in range(2):
        outcome = prune(full, among=["baseline", "postgres"])
        assert not outcome.changed and outcome.protected == ["postgres"] and outcome.pruned == []
        (warning,) = outcome.warnings
        assert "systemctl disable --now postgresql.service postgresql@17-main.service;" in warning
        assert f"{MANIFESTS}/postgres.json" in warning and "put the host back" in warning
    assert unit.active == "active" and full.calls == []
    assert full.tree("/") == before


def test_unit_of_a_kept_set_runs_on_and_takes_up_what_is_left(full: FakeHost) -> None:
    site = {"path": "/etc/nginx/more.conf", "content": "more\n"}
    full.apply(name="more", files=[site], units=[{"name": "nginx", "on_change": "reload"}])
    full.calls.clear()
    outcome = prune(full, keep=["baseline", "service", "edge"])
    assert outcome.pruned == ["more"] and outcome.units == {"nginx.service": ["reload"]}
    assert full.steps == ["reload nginx.service"]


@pytest.mark.parametrize("check", [True, False])
def test_unit_and_file_of_two_sets_go_with_the_last_of_them(full: FakeHost, check: bool) -> None:
    full.apply(name="copy", files=[NGINX["files"][0]], units=[{"name": "nginx", "on_change": "reload"}])
    outcome = prune(full, keep=["baseline", "service"], check=check)
    assert outcome.pruned == ["copy", "edge"]
    assert outcome.removed_files.count("/etc/nginx/nginx.conf") == 1
    assert outcome.units == {"nginx.service": ["stop", "disable"]}


@pytest.mark.parametrize("name", ["ssh.service", "systemd-journald.service", "multi-user.target"])
def test_what_the_host_needs_runs_on(full: FakeHost, name: str) -> None:
    full.units[name] = FakeUnit("active", "enabled")
    drop = {"path": "/etc/drop.conf", "content": "x\n"}
    full.apply(name="drop", files=[drop], units=[{"name": name, "on_change": "restart"}])
    full.calls.clear()
    assert prune(full, keep=["baseline", "service", "edge"]).units == {name: ["restart"]}
    assert full.units[name] == FakeUnit("active", "enabled") and not full.at("/etc/drop.conf").exists()


@pytest.mark.parametrize(
    ("options", "unit", "after"),
    [
        ({"state": "started", "enabled": None}, FakeUnit("active", "enabled"), FakeUnit("inactive", "disabled")),
        ({"state": "started", "enabled": True}, FakeUnit("active", "static"), FakeUnit("inactive", "static")),
        ({"state": "kept", "enabled": True}, FakeUnit("active", "enabled"), FakeUnit("active", "disabled")),
        ({"state": "kept", "enabled": None}, FakeUnit("active", "enabled"), FakeUnit("active", "enabled")),
        ({"state": "stopped", "enabled": False}, FakeUnit("inactive", "disabled"), FakeUnit("inactive", "disabled")),
    ],
)
def test_what_the_set_brought_about_is_undone(
    host: FakeHost, options: dict[str, Any], unit: FakeUnit, after: FakeUnit
) -> None:
    host.units["app.service"] = unit
    host.apply(name="app", units=[{"name": "app", **options}])
    prune(host)
    assert host.units["app.service"] == after and recorded(host.root) == []


def test_unit_whose_package_has_gone_is_no_error(full: FakeHost) -> None:
    del full.units["nginx.service"]
    assert prune(full, keep=["baseline", "service"]).units == {}
    assert not full.at("/etc/nginx/nginx.conf").exists()


def test_manifest_of_an_older_release_is_read(full: FakeHost) -> None:
    manifest = full.at(f"{MANIFESTS}/edge.json")
    data = json.loads(manifest.read_text())
    data["units"] = [unit["name"] for unit in data["units"]]
    manifest.write_text(json.dumps(data))
    assert not full.apply(**NGINX).changed
    assert json.loads(manifest.read_text())["units"][0]["on_change"] == "reload", "the next run writes it anew"
    manifest.write_text(json.dumps(data))
    assert prune(full).units["nginx.service"] == ["stop", "disable"]


def test_set_that_comes_back_is_as_before(full: FakeHost) -> None:
    before = full.tree()
    prune(full)
    for params in (SERVICE, NGINX):
        assert full.apply(**params).changed
    assert full.tree() == before and full.units["nginx.service"].active == "active"


@pytest.mark.parametrize("word", ["stop -- nginx", "disable -- nginx", "daemon-reload"])
def test_failure_brings_the_set_back_and_names_what_went_before(full: FakeHost, word: str) -> None:
    left = [word]

    def once(argv: tuple[str, ...]) -> str | None:
        return left.pop() + ": boom" if left and left[0] in " ".join(argv) else None

    before = full.tree("/")
    full.refuse = once
    with pytest.raises(TransactionError, match=r"edge (.|\n)*was not taken away(.|\n)*boom") as caught:
        prune(full)
    assert caught.value.facts["rolled_back"] and caught.value.facts["set"] == "edge"
    assert full.tree("/") == before and full.leftovers == []
    assert full.units["nginx.service"] == FakeUnit("active", "enabled")


def test_sets_before_a_failure_are_gone_and_those_after_untouched(full: FakeHost) -> None:
    full.refuse = lambda argv: "boom" if "app@blue.service" in argv and "stop" in argv else None
    run = pruning(full, keep=[])
    with pytest.raises(TransactionError):
        run.run(check=False)
    assert run.outcome.pruned == ["baseline", "edge"] and recorded(full.root) == ["service"]


class Killed(BaseException):
    """SIGKILL: nothing of ours runs any more, not even the way back."""


def test_killed_at_any_command_the_next_run_repairs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_at(number: int) -> Callable[[tuple[str, ...]], None]:
        numbers = count(1)

        def step(_argv: tuple[str, ...]) -> None:
            if next(numbers) == number:
                raise Killed

        return step

    killed = 0
    for number in range(1, 20):
        host = FakeHost(tmp_path / str(number))
        host.at("/etc").mkdir(parents=True)
        host.units["nginx.service"] = FakeUnit("active", "enabled")
        host.apply(**NGINX)
        with monkeypatch.context() as patch:
            patch.setattr(engine.Transaction, "_undo", lambda *_arguments: None)
            host.refuse = die_at(number)
            try:
                prune(host)
            except Killed:
                killed += 1
        host.refuse = lambda _argv: None
        if interrupted := bool(Journal.interrupted(host.root)):
            foretold = prune(host, check=True)
            assert foretold.changed and "was interrupted" in foretold.warnings[0]
        outcome = prune(host)
        assert bool(outcome.recovered) <= interrupted
        assert recorded(host.root) == [] and host.tree().keys() <= SYSTEMS
        assert host.units["nginx.service"] == FakeUnit("inactive", "disabled")
        assert host.leftovers == []
    assert killed > 3
