"""From the plan's components to the arguments of modules: what systemd, apt and dpkg are told."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.components import (
    as_installed,
    component_files,
    component_links,
    component_port_probes,
    component_programs,
    component_releases,
    component_units,
    component_user_files,
    idle_units,
    package_files,
    package_units,
    package_versions,
    systemd_command,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import SLOTS

PINNED = {"package": "ntfy", "version": "2.11.0", "units": ["ntfy.service", "ntfy-client.service"]}
WHATEVER = {"package": "miniflux", "version": None, "units": ["miniflux.service"]}


def test_apt_may_take_the_version_that_is_asked_for_and_no_other() -> None:
    (pin, *masks) = package_files([PINNED])
    assert pin["path"] == "/etc/apt/preferences.d/50-selfhost-fleet-ntfy.pref"
    first, second = (
        dict(line.split(": ", 1) for line in part.splitlines()[-3:]) for part in pin["content"].split("\n\n")
    )
    allowed = first["Pin"].removeprefix("version /").removesuffix("/")
    assert re.search(allowed, "2.11.0-2+b4") and not re.search(allowed, "2.12.0-1")
    # From 1000 on apt would go back to an older one; below 0 it takes none.
    assert int(first["Pin-Priority"]) < 1000
    assert second["Pin"] == "version *" and int(second["Pin-Priority"]) < 0
    # Empty: what is in the file would be run.
    assert masks == [{"path": f"/etc/systemd/system/{unit}", "content": ""} for unit in PINNED["units"]]


def test_whatever_there_is_has_no_pin() -> None:
    assert [entry["path"] for entry in package_files([WHATEVER])] == ["/etc/systemd/system/miniflux.service"]
    assert package_versions([PINNED, WHATEVER]) == {"ntfy": "2.11.0"}


def test_units_of_packages_are_stopped() -> None:
    assert {unit["name"]: unit["state"] for unit in package_units([PINNED, WHATEVER])} == {
        "ntfy.service": "stopped",
        "ntfy-client.service": "stopped",
        "miniflux.service": "stopped",
    }


def test_the_version_is_the_host_s() -> None:
    components = [
        {"root": root, "version": version, "release": {"version": version}}
        for root, version in (("/opt/ntfy/server", "distribution"), ("/opt/a/b", "1.0"), ("/opt/a/b", "1.1"))
    ]
    results = [
        {"item": {"root": "/opt/a/b", "version": "1.1"}, "version": "1.1"},
        {"item": {"root": "/opt/a/b", "version": "1.0"}, "version": "1.0"},
        {"item": {"root": "/opt/ntfy/server", "version": "distribution"}, "version": "2.11.0-2+b4"},
    ]
    found = [component["version"] for component in as_installed(components, results)]
    assert found == ["2.11.0-2+b4", "1.0", "1.1"]


DENO = {"name": "deno", "version": "2.9.8"}


def component(name: str = "server", *, slot: str = "blue", **changes: Any) -> dict[str, Any]:
    return {
        "service": "app",
        "component": name,
        "unit": f"app-{name}",
        "root": f"/opt/app/{name}",
        "version": "1.1",
        "slot": slot,
        "serving": slot,
        "user": "app",
        "release": {"version": "1.1", "executable": "run"},
        "companions": [DENO],
        "unused_ports": [],
        "probe": {},
        "config": None,
        **changes,
    }


def test_each_slot_has_its_own_links_and_companions_are_shared_as_releases() -> None:
    assert [component_links(component(slot=slot)) for slot in ("blue", "green")] == [
        [
            {"path": f"/opt/app/server/{slot}", "link": "releases/1.1"},
            {"path": f"/opt/app/companions/deno/server@{slot}", "link": "releases/2.9.8"},
        ]
        for slot in ("blue", "green")
    ]


def test_slots_have_no_file_in_common() -> None:
    config = {"path": "/etc/app/app.yaml", "format": "yaml", "content": {}}
    found = [{each["path"] for each in component_files(component(slot=slot, config=config))} for slot in SLOTS]
    assert found[0] & found[1] == set()
    assert "/etc/app/server.blue.yaml" in found[0] and "/etc/app/server.green.env" in found[1]


def test_the_path_of_the_configuration_shows_that_of_the_slot_that_serves() -> None:
    config = {"path": "/etc/app/app.yaml", "format": "yaml", "content": {}}
    files = component_user_files([component(config=config), component(slot="green", serving="blue", config=config)])
    assert {"path": "/etc/app/app.yaml", "link": "/etc/app/server.blue.yaml"} in files
    assert len({each["path"] for each in files}) == len(files) == 3


def test_a_release_is_put_beside_the_one_that_runs() -> None:
    assert [(each["root"], each["links"]) for each in component_releases(component())] == [
        ("/opt/app/companions/deno", {}),
        ("/opt/app/server", {}),
    ]
    # systemd is asked about the coming release before any link points at it.
    assert component_programs(component()) == ["/opt/app/server/releases/1.1/run"]


def test_a_package_has_no_former_release_to_go_back_to() -> None:
    packaged = component(release={"version": "distribution", "package": "app", "executable": "run"}, companions=[])
    (release,) = component_releases(packaged)
    assert release["links"] == {"blue": "distribution"}
    assert component_links(packaged) == []


def test_the_other_ports_have_to_be_the_unit_s_own_too() -> None:
    probe = {"kind": "http", "url": "http://10.0.0.4:8081/health", "status": [200], "start_timeout": 180}
    own = component(probe=probe, ports={"http": 8081, "metrics": 9091}, listen="10.0.0.4")
    assert component_port_probes(own) == [
        {"kind": "tcp", "url": "tcp://10.0.0.4:9091", "deadline": 180, "unit": "app-server@blue.service"},
    ]
    assert component_port_probes({**own, "unused_ports": ["metrics"]}) == []


def test_a_slot_that_stands_in_does_not_come_back_with_its_host() -> None:
    assert [component_units(component(), enabled)[0]["enabled"] for enabled in (True, False)] == [True, False]


def test_slots_that_run_no_more_are_stopped() -> None:
    both = [component(), component("worker", slot="green")]
    assert [each["name"] for each in idle_units(both, [])] == ["app-server@green.service", "app-worker@blue.service"]
    assert [each["name"] for each in idle_units(both, [component(slot="green")])] == ["app-worker@blue.service"]
    assert {(each["state"], each["enabled"]) for each in idle_units(both, [])} == {("stopped", False)}


@pytest.mark.parametrize(
    "words",
    [["/bin/x", "--a=b"], ["/bin/x", "a b", "c"], ["/bin/x", 'a "b"', "it's", "back\\slash", ""], ["/bin/x", ";"]],
)
def test_a_command_comes_back_word_by_word(words: list[str]) -> None:
    # systemd and a shell read these quotations alike.
    assert shlex.split(systemd_command(words)) == words
