"""config_prune on a real host: sets of its own, and nginx from the distribution."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible, Run

UNIT = """[Unit]
Description=A server of the test
[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 %i
[Install]
WantedBy=multi-user.target
"""
SITE = 'server { listen 127.0.0.1:8080; location / { return 200 "hello\\n"; } }\n'

KEPT: dict[str, Any] = {
    "name": "kept",
    "files": [{"path": "/etc/selfhost-test/kept.conf", "content": "kept\n"}],
    "units": [{"name": "cron-of-the-test.timer"}],
}
KEPT["files"] += [
    {
        "path": "/etc/systemd/system/cron-of-the-test.timer",
        "content": "[Timer]\nOnCalendar=yearly\n[Install]\nWantedBy=timers.target\n",
    },
    {
        "path": "/etc/systemd/system/cron-of-the-test.service",
        "content": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    },
]
APP: dict[str, Any] = {
    "name": "app",
    "files": [
        {"path": "/etc/systemd/system/test-app@.service", "content": UNIT},
        {"path": "/etc/systemd/system/test-app@.service.d/hard.conf", "content": "[Service]\nNoNewPrivileges=yes\n"},
        {"path": "/etc/selfhost-test-app/env", "secret_content": "hunter2-of-the-app\n", "mode": "0600"},
    ],
    "units": [{"name": "test-app@8090.service"}],
}
EDGE: dict[str, Any] = {
    "name": "edge",
    "files": [
        {"path": "/etc/nginx/conf.d/site.conf", "content": SITE},
        {"path": "/etc/systemd/system/nginx.service.d/selfhost.conf", "content": "[Service]\nLimitNOFILE=4096\n"},
    ],
    "directories": [{"path": "/etc/nginx/conf.d", "pattern": "*.conf"}],
    "validate": [["nginx", "-t"]],
    "units": [{"name": "nginx", "on_change": "reload"}],
    "probe": {"kind": "http", "url": "http://127.0.0.1:8080/", "body_pattern": "hello", "deadline": 10},
}
MANIFESTS = "/var/lib/selfhost/config"


class Fleet:
    """A host and the playbooks against it."""

    def __init__(self, host: Host, ansible: Ansible) -> None:
        self.host, self.ansible = host, ansible

    def _run(self, tasks: list[dict[str, Any]], **options: Any) -> Run:
        return self.ansible.playbook([{"hosts": "all", "gather_facts": False, "tasks": tasks}], [self.host], **options)

    def put(self, *sets: Mapping[str, Any]) -> None:
        self._run([{"name": item["name"], "selfhost.fleet.config_set": dict(item)} for item in sets])

    def prune(self, *keep: str, among: list[str] | None = None, **options: Any) -> Run:
        arguments = {"keep": list(keep), **({"among": among} if among else {}), **options.pop("arguments", {})}
        return self._run([{"name": "prune", "selfhost.fleet.config_prune": arguments}], **options)

    def result(self, *keep: str, **options: Any) -> dict[str, Any]:
        return self.prune(*keep, **options).of("prune").result

    def says(self, command: str) -> str:
        return self.host.root(command, check=False).stdout.strip()

    def state(self) -> str:
        """Files with bytes, modes and owners; units with what systemd has loaded of them."""
        return self.says(
            "find /etc /var/lib/selfhost/config ! -name '*.cache' -printf '%p %y %m %u %g %l\\n' "
            "-a -type f -exec sha256sum {} + | sort; "
            "systemctl show -p Id,ActiveState,UnitFileState,MainPID,DropInPaths nginx test-app@8090 cron-of-the-test.timer"
        )

    def unit(self, name: str) -> tuple[str, str]:
        return self.says(f"systemctl is-active {name}"), self.says(f"systemctl is-enabled {name}")


@pytest.fixture(scope="module")
def nginx(host: Host) -> Host:
    host.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy --no-install-recommends nginx",
        timeout=300,
    )
    return host


@pytest.fixture
def fleet(nginx: Host, ansible: Ansible) -> Fleet:
    """A host on which all three sets are in place, whatever the test before has left."""
    made = Fleet(nginx, ansible)
    made.put(KEPT, APP, EDGE)
    assert made.unit("nginx") == ("active", "enabled")
    return made


def test_a_bare_host_has_nothing_to_take_away(debian12_host: Host, ansible: Ansible) -> None:
    bare = Fleet(debian12_host, ansible)
    before = bare.says("find /etc /var/lib/selfhost 2>&1 | sort | sha256sum")
    for check in (True, False):
        result = bare.result("baseline", check=check)
        assert not result["changed"] and result["pruned"] == []
    assert bare.says("find /etc /var/lib/selfhost 2>&1 | sort | sha256sum") == before


def test_debian_12_takes_a_set_away(debian12_host: Host, ansible: Ansible) -> None:
    bare = Fleet(debian12_host, ansible)
    bare.put(KEPT, APP)
    assert bare.unit("test-app@8090") == ("active", "enabled")
    assert bare.result("kept")["pruned"] == ["app"]
    assert "http.server" not in bare.says("ps ax") and bare.unit("cron-of-the-test.timer") == ("active", "enabled")
    assert not bare.result("kept")["changed"]


def test_check_mode_tells_and_touches_nothing(fleet: Fleet) -> None:
    before = fleet.state()
    run = fleet.prune("kept", check=True, diff=True)
    result = run.of("prune").result
    assert result["changed"] and result["pruned"] == ["app", "edge"]
    assert fleet.state() == before
    assert '-server { listen 127.0.0.1:8080; location / { return 200 "hello' in run.output
    assert "-set: managed" in run.output and "-state: active" in run.output and "-unit: there" in run.output
    assert "hunter2" not in run.output and "(secret content, before)" in run.output
    real = fleet.result("kept", diff=True)
    keys = ("pruned", "removed_files", "units")
    assert [real[key] for key in keys] == [result[key] for key in keys]


def test_units_and_files_are_gone_and_the_second_run_changes_nothing(fleet: Fleet) -> None:
    result = fleet.result("kept", among=["kept", "app", "edge"])
    assert result["pruned"] == ["edge", "app"]
    assert result["units"] == {"nginx.service": ["stop", "disable"], "test-app@8090.service": ["stop", "disable"]}
    assert "http.server" not in fleet.says("ps ax") and "nginx" not in fleet.says("ps ax")
    assert fleet.host.root("systemctl status test-app@8090", check=False).returncode == 4
    assert fleet.says("find /etc -name '*test-app*' -o -path '*nginx.service.d*' -o -name site.conf") == ""
    assert fleet.says("systemctl show -p DropInPaths --value nginx") == ""
    assert fleet.says(f"ls {MANIFESTS}") == "kept.json"
    assert fleet.says("cat /etc/selfhost-test/kept.conf") == "kept"
    assert fleet.unit("cron-of-the-test.timer") == ("active", "enabled")

    # The distribution's own is stopped, not removed: it can be started by hand.
    assert fleet.unit("nginx") == ("inactive", "disabled")
    assert fleet.says("nginx -t 2>&1 | tail -1").endswith("test is successful")

    before = fleet.state()
    again = fleet.result("kept")
    assert not again["changed"] and again["pruned"] == [] and again["units"] == {}
    assert fleet.state() == before


def test_sets_of_others_are_left_alone(fleet: Fleet) -> None:
    result = fleet.result("kept", among=["kept", "app"])
    assert result["pruned"] == ["app"] and fleet.unit("nginx") == ("active", "enabled")
    assert fleet.says(f"ls {MANIFESTS}").split() == ["edge.json", "kept.json"]


def test_unit_that_another_set_needs_takes_up_what_is_left(fleet: Fleet) -> None:
    extra = {"path": "/etc/nginx/conf.d/extra.inc", "content": "# extra\n"}
    fleet.put({"name": "extra", "files": [extra], "units": [{"name": "nginx", "on_change": "reload"}]})
    pid = fleet.says("systemctl show -p MainPID --value nginx")
    result = fleet.result("kept", "app", "edge")
    assert result["pruned"] == ["extra"] and result["units"] == {"nginx.service": ["reload"]}
    assert fleet.says("systemctl show -p MainPID --value nginx") == pid


def test_the_way_to_the_host_stays_open(fleet: Fleet) -> None:
    drop = {"path": "/etc/ssh/sshd_config.d/50-test.conf", "content": "MaxAuthTries 4\n"}
    fleet.put({"name": "sshd", "files": [drop], "units": [{"name": "ssh", "on_change": "reload"}]})
    result = fleet.result("kept", "app", "edge")
    assert result["pruned"] == ["sshd"] and result["units"] == {"ssh.service": ["reload"]}
    assert fleet.host.ssh("echo in").stdout.strip() == "in"
    assert fleet.unit("ssh") == ("active", "enabled")


def test_database_runs_on_and_the_run_says_what_to_do(fleet: Fleet) -> None:
    unit = {"path": "/etc/systemd/system/test-database.service", "content": UNIT.replace("%i", "8091")}
    fleet.put({"name": "postgres", "files": [unit], "units": [{"name": "test-database"}]})
    for check in (True, False):
        run = fleet.prune("kept", "app", "edge", check=check)
        result = run.of("prune").result
        assert not result["changed"] and result["protected"] == ["postgres"]
        assert "systemctl disable --now postgresql.service test-database.service;" in run.output
        assert fleet.unit("test-database") == ("active", "enabled")
    # By hand, as the warning says.
    fleet.says(f"systemctl disable --now test-database; rm {unit['path']} {MANIFESTS}/postgres.json")
    assert fleet.result("kept", "app", "edge")["protected"] == []


def test_failed_removal_brings_the_set_back(fleet: Fleet) -> None:
    refusing = {
        "path": "/etc/systemd/system/test-refusing@.service",
        "content": f"{UNIT}[Unit]\nRefuseManualStop=yes\n",
    }
    units = [*APP["units"], {"name": "test-refusing@8092"}]
    fleet.put({**APP, "files": [*APP["files"], refusing], "units": units})
    before = fleet.state()
    result = fleet.result("kept", "edge", expect_failure=True)
    assert result["rolled_back"] and result["set"] == "app" and result["pruned"] == []
    assert "was not taken away" in result["msg"] and "Operation refused" in result["msg"]
    assert fleet.says("find / -xdev -name '*.selfhost-*'; find /var/lib/selfhost/transactions -mindepth 2") == ""
    for name in ("test-app@8090", "test-refusing@8092"):
        assert fleet.unit(name) == ("active", "enabled")
    assert re.sub("MainPID=.*", "", fleet.state()) == re.sub("MainPID=.*", "", before)

    fleet.put({**APP, "files": [*APP["files"], {**refusing, "content": UNIT}], "units": units})
    assert fleet.result("kept", "edge")["pruned"] == ["app"]
    assert "http.server" not in fleet.says("ps ax")
