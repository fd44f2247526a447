"""Which unit does what, for which change."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.redact import Redactor
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.units import belongs

from tests.unit.transaction.host import FakeHost, FakeUnit

FILE: dict[str, Any] = {"path": "/etc/app/a.conf", "content": "a\n"}
DROP_IN: dict[str, Any] = {"path": "/etc/systemd/system/app.service.d/x.conf", "content": "[Service]\n"}


@pytest.mark.parametrize(
    ("unit", "options", "files", "steps"),
    [
        (FakeUnit("active", "enabled"), {"on_change": "reload"}, [FILE], ["reload app.service"]),
        (FakeUnit("active", "enabled"), {"on_change": "restart"}, [FILE], ["restart app.service"]),
        (FakeUnit("active", "enabled"), {"on_change": "none"}, [FILE], []),
        (FakeUnit("active", "enabled", can_reload="no"), {"on_change": "reload"}, [FILE], ["restart app.service"]),
        (
            FakeUnit("active", "enabled"),
            {"on_change": "reload", "restart_on": ["*/a.*"]},
            [FILE],
            ["restart app.service"],
        ),
        (FakeUnit("active", "enabled"), {"on_change": "reload", "files": ["/etc/b/*"]}, [FILE], []),
        (FakeUnit("active", "enabled"), {"on_change": "reload"}, [DROP_IN], ["daemon-reload", "restart app.service"]),
        (FakeUnit("inactive", "disabled"), {}, [], ["enable app.service", "start app.service"]),
        (FakeUnit("inactive", "static"), {}, [], ["start app.service"]),
        (FakeUnit("inactive", "disabled"), {"enabled": None, "state": "kept"}, [FILE], []),
        (
            FakeUnit("active", "enabled"),
            {"enabled": False, "state": "stopped"},
            [],
            ["disable app.service", "stop app.service"],
        ),
        (FakeUnit("inactive", "enabled", kind="oneshot"), {}, [], []),
        (FakeUnit("inactive", "enabled", kind="oneshot"), {}, [FILE], ["start app.service"]),
        (FakeUnit("failed", "enabled", kind="oneshot"), {}, [], ["start app.service"]),
    ],
)
def test_steps(host: FakeHost, unit: FakeUnit, options: dict[str, Any], files: list[Any], steps: list[str]) -> None:
    host.units["app.service"] = unit
    spec = {"name": "app", "enabled": True, **options}
    expected = host.apply(files=files, units=[spec], check=True)
    assert host.steps == []
    outcome = host.apply(files=files, units=[spec])
    assert host.steps == steps
    assert outcome.units == expected.units and outcome.changed == bool(files or steps)
    assert not host.apply(files=files, units=[spec]).changed


def test_unit_that_comes_with_the_set(host: FakeHost) -> None:
    outcome = host.apply(
        files=[{"path": "/etc/systemd/system/new@.service", "content": ""}],
        units=[{"name": "new@blue", "enabled": True}],
    )
    assert outcome.units == {"new@blue.service": ["enable", "start"]}
    assert host.steps == ["daemon-reload", "enable new@blue.service", "start new@blue.service"]


def test_unit_that_nobody_brings(host: FakeHost) -> None:
    assert "there is no ghost.service" in host.apply(units=[{"name": "ghost"}], check=True).warnings[0]
    with pytest.raises(TransactionError, match=r"there is no ghost\.service on this host"):
        host.apply(units=[{"name": "ghost"}])


def restarted(host: FakeHost, holder: str, **more: Any) -> Any:
    host.units["app.service"] = FakeUnit("active", "enabled")
    host.holder = lambda _options: ("127.0.0.1:80", holder)
    probe = {"kind": "tcp", "url": "tcp://127.0.0.1:80", "unit": "app.service"}
    return host.apply(files=[FILE], units=[{"name": "app", "on_change": "restart"}], probes=[probe], **more)


def test_a_port_that_a_stranger_holds_is_seen_before_anything_is_touched(host: FakeHost) -> None:
    words = "127.0.0.1:80, where app.service is to listen, is held by /system.slice/other.service"
    with pytest.raises(TransactionError, match=words):
        restarted(host, "/system.slice/other.service")
    assert host.steps == []
    assert words in restarted(host, "/system.slice/other.service", check=True).warnings[0]


def test_a_port_that_a_unit_of_the_set_lets_go_of_is_free(host: FakeHost) -> None:
    restarted(host, "/system.slice/app.service/payload")
    assert host.steps == ["restart app.service"]


def test_check_mode_without_systemd(host: FakeHost) -> None:
    host.installed.clear()
    assert "systemctl is not installed" in host.apply(units=[{"name": "app"}], check=True).warnings[0]


def test_instances_go_with_their_template(host: FakeHost) -> None:
    path = "/etc/systemd/system/app@.service"
    host.apply(files=[{"path": path, "content": ""}], units=[{"name": "app@blue"}, {"name": "app@green"}])
    host.calls.clear()
    outcome = host.apply(files=[])
    assert outcome.removed_files == [path]
    names = "app@blue.service app@green.service"
    assert host.steps == [f"stop {names}", f"disable {names}", "daemon-reload"]


def hangs() -> FakeUnit:
    return FakeUnit("active", "enabled", ends="failed", result="timeout")


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"units": [{"name": "app", "enabled": False, "state": "stopped"}]}, id="stopped"),
        pytest.param({"files": [], "units": []}, id="its file goes"),
    ],
)
def test_a_stop_that_ends_in_a_kill_is_no_failure(host: FakeHost, wanted: dict[str, Any]) -> None:
    host.apply(files=[{"path": "/etc/systemd/system/app.service", "content": ""}], units=[{"name": "app"}])
    host.units["app.service"] = hangs()
    outcome = host.apply(**{"files": [{"path": "/etc/systemd/system/app.service", "content": ""}], **wanted})
    assert host.units["app.service"].active == "inactive"
    assert outcome.warnings == [
        "app.service did not end by itself when it was stopped (timeout: timeout means that it was killed for it). "
        "It is down, and no longer counted as failed"
    ]


def test_a_way_back_that_ends_in_a_kill_is_a_way_back(host: FakeHost) -> None:
    host.units["app.service"] = FakeUnit("inactive", "enabled", ends="failed")
    host.probe = lambda _options: (False, "HTTP 502")
    run = host.transaction(units=[{"name": "app"}], probes=[{"kind": "http"}])
    with pytest.raises(TransactionError, match="The former files and running state are back"):
        run.run(check=False)
    assert host.units["app.service"].active == "inactive"
    assert "did not end by itself" in run.outcome.warnings[0]


def test_a_unit_that_ends_as_it_should_is_not_spoken_of(host: FakeHost) -> None:
    host.units["app.service"] = FakeUnit("active", "enabled")
    assert host.apply(units=[{"name": "app", "enabled": True, "state": "stopped"}]).warnings == []
    assert host.steps == ["stop app.service"]


def test_unit_alone_brings_its_former_state_back(host: FakeHost) -> None:
    host.units["app.service"] = FakeUnit("inactive", "disabled")
    host.refuse = lambda argv: "boom" if "start" in argv else None
    with pytest.raises(TransactionError, match=r"systemctl start app\.service: boom"):
        host.apply(units=[{"name": "app", "enabled": True}])
    assert host.units["app.service"] == FakeUnit("inactive", "disabled")


@pytest.mark.parametrize(
    ("path", "unit", "expected"),
    [
        ("/etc/systemd/system/a.service", "a.service", True),
        ("/etc/systemd/system/a.service.d/x.conf", "a.service", True),
        ("/etc/systemd/system/a@.service", "a@blue.service", True),
        ("/etc/systemd/system/a@.service.d/x.conf", "a@blue.service", True),
        ("/etc/systemd/system/a@green.service", "a@blue.service", False),
        ("/etc/a/a.service", "a.service", False),
    ],
)
def test_belongs(path: str, unit: str, expected: bool) -> None:
    assert belongs(path, unit) is expected


def test_redactor() -> None:
    redact = Redactor([b'DB_PASSWORD=\'hunter2 x\'\nURL=postgres://app:s3cretpw@db/x\n"app" "SCRAM-abc"\nport=5432\n'])
    said = redact("bad 'hunter2 x' in DB_PASSWORD, s3cretpw, SCRAM-abc, port 5432")
    assert said == "bad (secret) in DB_PASSWORD, (secret), (secret), port 5432"


def test_what_is_shown_anyway_is_no_secret() -> None:
    content = b"DATABASE_NAME=fluxbase\nLISTEN=127.0.0.1\nPASSWORD=correct-horse-battery\n"
    redact = Redactor([content], known=["/etc/fluxbase/server.env", "http://127.0.0.1:8081/health"])
    said = redact("fluxbase-server@blue.service: http://127.0.0.1:8081/health with correct-horse-battery")
    assert said == "fluxbase-server@blue.service: http://127.0.0.1:8081/health with (secret)"
