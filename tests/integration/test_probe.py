"""Probes of real units on real hosts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

MODULE = "selfhost.fleet.probe"
SERVER = "/usr/bin/python3 -m http.server --bind 127.0.0.1"

Unit = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="module", params=["host", "debian12_host"])
def target(request: pytest.FixtureRequest) -> Host:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Host)
    return made


@pytest.fixture
def unit(target: Host) -> Unit:
    @contextmanager
    def run(name: str, command: str, *settings: str) -> Iterator[str]:
        lines = [f"ExecStart={command}", "WorkingDirectory=/usr/share/common-licenses", *settings]
        content = "[Unit]\nStartLimitIntervalSec=0\n[Service]\n" + "\n".join(lines) + "\n"
        target.put(f"/etc/systemd/system/{name}.service", content)
        target.root(f"systemctl daemon-reload; systemctl start --no-block {name}")
        try:
            yield f"{name}.service"
        finally:
            target.root(f"systemctl stop {name}; rm /etc/systemd/system/{name}.service; systemctl daemon-reload")
            target.root(f"systemctl reset-failed {name}", check=False)  # only where it had failed

    return run


def ask(ansible: Ansible, host: Host, run: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return ansible.module(MODULE, {"kind": "http", **options}, host, **(run or {}))


def test_a_service_that_answers(ansible: Ansible, target: Host, unit: Unit) -> None:
    with unit("answers", f"{SERVER} 8101") as name:
        url = "http://127.0.0.1:8101/GPL-3"
        result = ask(ansible, target, url=url, body_pattern="GNU GENERAL PUBLIC", successes=3, unit=name)
        assert (result["ok"], result["status"], result["changed"]) == (True, 200, False)
        assert result["unit_state"] == "active (running)"
        assert ask(ansible, target, kind="tcp", url="tcp://127.0.0.1:8101")["ok"]
        failed = ask(
            ansible, target, kind="websocket", url="ws://127.0.0.1:8101/", deadline=0, run={"expect_failure": True}
        )
        assert "wanted 101 Switching Protocols" in failed["msg"]


def test_one_crash_at_start_is_systemds(ansible: Ansible, target: Host, unit: Unit) -> None:
    target.root("rm -f /run/tried")
    command = f"/bin/sh -c 'test -e /run/tried || {{ touch /run/tried; exit 1; }}; exec {SERVER} 8102'"
    with unit("heals", command, "Restart=on-failure", "RestartSec=1") as name:
        result = ask(ansible, target, url="http://127.0.0.1:8102/", unit=name)
    assert result["ok"]


def test_a_series_of_crashes_ends_it_with_the_journal(ansible: Ansible, target: Host, unit: Unit) -> None:
    command = "/bin/sh -c 'echo cannot reach the database; exit 7'"
    with unit("crashes", command, "Restart=always", "RestartSec=200ms") as name:
        begin = time.monotonic()
        result = ask(
            ansible, target, url="http://127.0.0.1:8103/", unit=name, deadline=300, run={"expect_failure": True}
        )
    assert time.monotonic() - begin < 30
    assert "Given up before the deadline of 300 s: the unit crashes.service crashed" in result["msg"]
    assert "connection refused" in result["last_answer"]
    assert any("cannot reach the database" in line for line in result["journal"])


def test_a_unit_that_has_failed(ansible: Ansible, target: Host, unit: Unit) -> None:
    with unit("fails", "/bin/sh -c 'echo wrong key; exit 3'") as name:
        result = ask(
            ansible, target, url="http://127.0.0.1:8104/", unit=name, deadline=300, run={"expect_failure": True}
        )
    assert result["elapsed"] < 10
    assert "failed (failed, exit-code, exit status 3)" in result["unit_state"]
    assert any("wrong key" in line for line in result["journal"])


def test_another_process_on_the_port_is_not_taken_for_the_unit(ansible: Ansible, target: Host, unit: Unit) -> None:
    with unit("former", f"{SERVER} 8105") as former:
        assert ask(ansible, target, url="http://127.0.0.1:8105/", unit=former)["ok"]
        with unit("newcomer", f"{SERVER} 8105", "Restart=always", "RestartSec=100ms") as name:
            result = ask(
                ansible,
                target,
                url="http://127.0.0.1:8105/",
                unit=name,
                successes=5,
                deadline=60,
                run={"expect_failure": True},
            )
    # Which one depends on the moment: in the middle of a start, or after a series of crashes.
    assert "which holds the port" in result["msg"] or "newcomer.service crashed" in result["msg"]


def test_a_unit_that_only_logs_a_taken_port(ansible: Ansible, target: Host, unit: Unit) -> None:
    with unit("holder", f"{SERVER} 8108"), unit("idle", "/usr/bin/sleep infinity") as name:
        url = "http://127.0.0.1:8108/"
        result = ask(ansible, target, url=url, unit=name, deadline=2, run={"expect_failure": True})
    assert "/system.slice/holder.service, which holds the port" in result["msg"]
    assert result["unit_state"] == "active (running)"


def test_a_unit_that_there_is_not(ansible: Ansible, target: Host) -> None:
    result = ask(ansible, target, url="http://127.0.0.1:8106/", unit="absent.service", run={"expect_failure": True})
    assert "the unit absent.service is not-found" in result["msg"]
    assert result["tries"] == 1


def test_check_mode_asks_once_and_does_not_fail(ansible: Ansible, target: Host) -> None:
    result = ask(ansible, target, url="http://127.0.0.1:8107/", run={"check": True})
    assert (result["ok"], result["tries"], result["changed"]) == (False, 1, False)


def test_a_mistake_names_the_option(ansible: Ansible, target: Host) -> None:
    result = ask(ansible, target, url="tcp://127.0.0.1:1", run={"expect_failure": True})
    assert "does not fit kind http" in result["msg"]
