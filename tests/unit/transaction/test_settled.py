"""What a run that asks for the same again need not ask the host for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.settled import digest, settled

from tests.unit.transaction.host import GROUP, USER, FakeHost, FakeUnit

EDGE: dict[str, Any] = {
    "name": "edge",
    "files": [
        {"path": "/etc/nginx/nginx.conf", "content": "events {}\n"},
        {"path": "/etc/nginx/users", "secret_content": "hunter2\n", "mode": "0600"},
        {"path": "/etc/nginx/current", "link": "releases/1"},
    ],
    "directories": [{"path": "/etc/nginx/sites", "pattern": "*.conf"}],
    "units": [{"name": "nginx", "on_change": "reload", "enabled": True}],
}


def asked(**changes: Any) -> dict[str, Any]:
    request = {**EDGE, **changes}
    for kind in ("files", "directories"):
        request[kind] = [{"owner": USER, "group": GROUP, **entry} for entry in request[kind]]
    return {**request, "digest": digest(request)}


def move(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


@pytest.fixture
def served(host: FakeHost) -> FakeHost:
    host.units["nginx.service"] = FakeUnit("active", "enabled")
    host.apply(**asked())
    host.calls.clear()
    return host


def seen(host: FakeHost) -> dict[str, str]:
    return settled(host.root, host, timeout=5)


def test_a_set_that_is_as_it_was_asked_for(served: FakeHost) -> None:
    assert seen(served) == {"edge": asked()["digest"]}
    assert served.steps == []


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(lambda host: host.put("/etc/nginx/nginx.conf", "events {} # by hand\n"), id="content"),
        pytest.param(lambda host: host.at("/etc/nginx/users").chmod(0o644), id="mode of a file"),
        pytest.param(lambda host: host.at("/etc/nginx/users").unlink(), id="a file is gone"),
        pytest.param(lambda host: host.at("/etc/nginx/current").unlink(), id="a link is gone"),
        pytest.param(lambda host: move(host.at("/etc/nginx/current"), "releases/2"), id="a link was moved"),
        pytest.param(lambda host: host.put("/etc/nginx/sites/stranger.conf", ""), id="a stranger in an owned folder"),
        pytest.param(lambda host: host.at("/etc/nginx/sites").chmod(0o700), id="mode of a folder"),
        pytest.param(lambda host: setattr(host.units["nginx.service"], "active", "failed"), id="a unit has failed"),
        pytest.param(lambda host: setattr(host.units["nginx.service"], "enabled", "disabled"), id="a unit is disabled"),
        pytest.param(lambda host: host.units.pop("nginx.service"), id="a unit is gone"),
        pytest.param(lambda host: host.at("/var/lib/selfhost/transactions/edge").mkdir(parents=True), id="interrupted"),
        pytest.param(lambda host: host.put("/var/lib/selfhost/config/edge.json", "{"), id="a broken manifest"),
    ],
)
def test_what_was_disturbed_is_not_settled(served: FakeHost, disturb: Callable[[FakeHost], object]) -> None:
    disturb(served)
    assert seen(served) == {}


def test_a_file_that_its_pattern_does_not_cover_disturbs_nothing(served: FakeHost) -> None:
    served.put("/etc/nginx/sites/readme.txt", "")
    assert seen(served) == {"edge": asked()["digest"]}


def test_a_disturbed_set_does_not_hide_the_others(served: FakeHost) -> None:
    base = {"name": "base", "files": [{"path": "/etc/base.conf", "content": "b\n", "owner": USER, "group": GROUP}]}
    served.apply(**base, digest=digest(base))
    served.put("/etc/nginx/nginx.conf", "events {} # by hand\n")
    assert seen(served) == {"base": digest(base)}


def test_a_set_of_which_nobody_told_the_request_is_never_settled(served: FakeHost) -> None:
    served.apply(**{**asked(), "digest": None})
    assert seen(served) == {}


def test_a_new_request_is_remembered_where_nothing_else_changes(served: FakeHost) -> None:
    outcome = served.apply(**asked(timeout=30))
    assert not outcome.changed
    assert seen(served) == {"edge": asked(timeout=30)["digest"]} != {"edge": asked()["digest"]}


def test_a_failed_change_leaves_the_former_request(served: FakeHost) -> None:
    served.refuse = lambda argv: "bad" if argv == ("check",) else None
    files = [{"path": "/etc/nginx/nginx.conf", "content": "events\n"}]
    with pytest.raises(Exception, match="rejects the candidate"):
        served.apply(**asked(files=files, validate=[["check"]]))
    assert seen(served) == {"edge": asked()["digest"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"files": [{**EDGE["files"][0], "content": "events { }\n"}, *EDGE["files"][1:]]},
        {"files": [EDGE["files"][0], {**EDGE["files"][1], "secret_content": "hunter3\n"}, EDGE["files"][2]]},
        {"files": [*EDGE["files"][:2], {**EDGE["files"][2], "link": "releases/2"}]},
        {"units": []},
        {"validate": [["nginx", "-t"]]},
        {"probes": [{"kind": "tcp"}]},
    ],
    ids=["content", "secret", "link", "units", "validators", "probes"],
)
def test_another_request_has_another_digest(changes: dict[str, Any]) -> None:
    assert asked(**changes)["digest"] != asked()["digest"]


def test_the_envelope_of_a_secret_is_another_each_time_and_the_digest_is_not() -> None:
    first, second = (
        {**EDGE, "files": [{"path": "/x", "secret_content": f"selfhost-envelope:{sign * 32}:aHVudGVy"}]}
        for sign in "ab"
    )
    assert digest(first) == digest(second)
