"""From the plan's components to the arguments of modules: what systemd, apt and dpkg are told."""

from __future__ import annotations

import re
import shlex

import pytest
from ansible_collections.selfhost.fleet.plugins.filter.components import (
    as_installed,
    package_files,
    package_units,
    package_versions,
    systemd_command,
)

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
    components = [{"root": "/opt/ntfy/server", "version": "distribution"}, {"root": "/opt/a/b", "version": "1.0"}]
    results = [
        {"item": {"root": "/opt/a/b"}, "version": "1.0"},
        {"item": {"root": "/opt/ntfy/server"}, "version": "2.11.0-2+b4"},
    ]
    assert [component["version"] for component in as_installed(components, results)] == ["2.11.0-2+b4", "1.0"]


@pytest.mark.parametrize(
    "words",
    [["/bin/x", "--a=b"], ["/bin/x", "a b", "c"], ["/bin/x", 'a "b"', "it's", "back\\slash", ""], ["/bin/x", ";"]],
)
def test_a_command_comes_back_word_by_word(words: list[str]) -> None:
    # systemd and a shell read these quotations alike.
    assert shlex.split(systemd_command(words)) == words
