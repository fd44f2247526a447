"""What lies on the host afterwards: written, removed, left alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import SetSpec, TransactionError

from tests.unit.transaction.host import GROUP, USER, FakeHost

A: dict[str, Any] = {"path": "/etc/app/a.conf", "content": "a\n"}
B: dict[str, Any] = {"path": "/etc/app/b.conf", "content": "b\n", "mode": "0600"}


def test_writes_and_then_changes_nothing(host: FakeHost) -> None:
    first = host.apply(files=[A, B])
    assert first.changed and first.changed_files == [A["path"], B["path"], "/etc/app"]
    assert host.tree() == {"/etc/app": ("/", 0o755), A["path"]: ("a\n", 0o644), B["path"]: ("b\n", 0o600)}
    inode = host.at(A["path"]).stat().st_ino

    second = host.apply(files=[A, B])
    assert not second.changed and second.diff == [] and second.validated is None
    assert host.at(A["path"]).stat().st_ino == inode
    assert host.leftovers == []


def test_only_what_differs_is_written(host: FakeHost) -> None:
    host.apply(files=[A, B])
    inode = host.at(A["path"]).stat().st_ino
    outcome = host.apply(files=[A, {**B, "content": "new\n"}])
    assert outcome.changed_files == [B["path"]]
    assert host.at(A["path"]).stat().st_ino == inode


def test_mode_alone_is_a_change_and_shown(host: FakeHost) -> None:
    host.apply(files=[A])
    host.at(A["path"]).chmod(0o666)
    outcome = host.apply(files=[A])
    assert outcome.changed_files == [A["path"]]
    assert outcome.diff[0]["before"].startswith("mode: 0666") and outcome.diff[0]["after"].startswith("mode: 0644")
    assert host.tree()[A["path"]] == ("a\n", 0o644)


def test_file_dropped_from_the_list_is_removed_with_its_empty_folder(host: FakeHost) -> None:
    host.apply(files=[A, {**B, "path": "/etc/other/b.conf"}])
    outcome = host.apply(files=[A])
    assert outcome.removed_files == ["/etc/other/b.conf", "/etc/other"]
    assert sorted(host.tree()) == ["/etc/app", A["path"]]


def test_made_folder_with_something_of_others_in_it_stays(host: FakeHost) -> None:
    host.apply(files=[A])
    host.put("/etc/app/theirs", "x")
    assert host.apply(files=[]).removed_files == [A["path"]]
    assert sorted(host.tree()) == ["/etc/app", "/etc/app/theirs"]


def test_folder_that_was_there_before_is_never_removed(host: FakeHost) -> None:
    host.at("/etc/app").mkdir()
    host.apply(files=[A])
    host.apply(files=[])
    assert sorted(host.tree()) == ["/etc/app"]


def test_owned_folder_holds_what_is_listed(host: FakeHost) -> None:
    host.put("/etc/app/stray.conf", "x")
    host.put("/etc/app/sub/kept", "x")
    host.at("/etc/app/link").symlink_to("/etc/hosts")
    outcome = host.apply(files=[A], directories=[{"path": "/etc/app"}])
    assert outcome.removed_files == ["/etc/app/link", "/etc/app/stray.conf"]
    assert sorted(host.tree()) == ["/etc/app", A["path"], "/etc/app/sub", "/etc/app/sub/kept"]


def test_pattern_limits_what_is_owned(host: FakeHost) -> None:
    host.put("/etc/app/stray.conf", "x")
    host.put("/etc/app/readme", "x")
    outcome = host.apply(files=[A], directories=[{"path": "/etc/app", "pattern": "*.conf"}])
    assert outcome.removed_files == ["/etc/app/stray.conf"]


def test_folder_that_is_not_owned_keeps_its_files(host: FakeHost) -> None:
    host.put("/etc/app/stray", "x")
    outcome = host.apply(directories=[{"path": "/etc/app", "owned": False, "mode": "0700"}])
    assert outcome.removed_files == [] and host.tree()["/etc/app"] == ("/", 0o700)


def test_files_of_another_set_are_not_removed(host: FakeHost) -> None:
    host.apply(name="other", files=[B])
    outcome = host.apply(files=[A], directories=[{"path": "/etc/app"}])
    assert outcome.removed_files == [] and B["path"] in host.tree()


def test_file_that_moved_to_another_set_survives_the_former_one(host: FakeHost) -> None:
    host.apply(name="old", files=[A])
    assert "managed by the set old too" in host.apply(name="new", files=[A]).warnings[0]
    assert host.apply(name="old", files=[]).removed_files == []
    assert host.tree()[A["path"]] == ("a\n", 0o644)


def test_link_in_place_of_a_file_is_replaced_not_followed(host: FakeHost) -> None:
    victim = host.put("/etc/victim", "precious")
    host.at("/etc/app").mkdir()
    host.at(A["path"]).symlink_to(victim)
    host.apply(files=[A])
    assert victim.read_text() == "precious" and not host.at(A["path"]).is_symlink()


def test_a_link_is_made_moved_and_removed(host: FakeHost) -> None:
    first = {"path": "/etc/app/blue", "link": "releases/1"}
    expected = host.apply(files=[first], check=True)
    outcome = host.apply(files=[first])
    assert outcome.changed_files == expected.changed_files == ["/etc/app/blue", "/etc/app"]
    assert outcome.diff[0] == {
        "before_header": "/etc/app/blue (absent)",
        "after_header": "/etc/app/blue",
        "before": "",
        "after": "(link to releases/1)\n",
    }
    assert host.at("/etc/app/blue").readlink() == Path("releases/1")
    assert not host.apply(files=[first]).changed

    moved = host.apply(files=[{**first, "link": "releases/2"}])
    assert (moved.diff[0]["before"], moved.diff[0]["after"]) == ("(link to releases/1)\n", "(link to releases/2)\n")
    assert host.at("/etc/app/blue").readlink() == Path("releases/2")
    assert host.apply(files=[]).removed_files == ["/etc/app/blue", "/etc/app"]
    assert host.tree() == {} and host.leftovers == []


def test_a_link_and_a_file_take_each_other_s_place(host: FakeHost) -> None:
    victim = host.put("/etc/victim", "precious")
    host.apply(files=[A])
    assert host.apply(files=[{"path": A["path"], "link": "../victim"}]).diff[0]["before"] == "a\n"
    assert host.at(A["path"]).read_text() == "precious"
    host.apply(files=[A])
    assert victim.read_text() == "precious" and not host.at(A["path"]).is_symlink()


def test_what_was_secret_is_not_shown_where_a_link_takes_its_place(host: FakeHost) -> None:
    host.apply(files=[{"path": "/etc/app/s", "secret_content": "hunter2"}])
    outcome = host.apply(files=[{"path": "/etc/app/s", "link": "t"}])
    assert "hunter2" not in json.dumps(outcome.diff)


def test_folder_in_place_of_a_file_is_refused(host: FakeHost) -> None:
    host.at(A["path"]).mkdir(parents=True)
    with pytest.raises(TransactionError, match=r"/etc/app/a\.conf is to be a file, but a directory is there"):
        host.apply(files=[A])
    with pytest.raises(TransactionError, match=r"/etc/app/a\.conf is to be a link, but a directory is there"):
        host.apply(files=[{"path": A["path"], "link": "b"}])


def test_file_in_place_of_a_parent_is_refused(host: FakeHost) -> None:
    host.put("/etc/app", "x")
    with pytest.raises(TransactionError, match="/etc/app is not a folder"):
        host.apply(files=[A])


def test_manifest_is_private_and_holds_no_content(host: FakeHost) -> None:
    host.apply(files=[{"path": "/etc/app/s", "secret_content": "hunter2hunter2"}])
    manifest = host.at("/var/lib/selfhost/config/set.json")
    assert stat.S_IMODE(manifest.stat().st_mode) == 0o600
    assert stat.S_IMODE(manifest.parent.stat().st_mode) == 0o700
    assert "hunter2" not in manifest.read_text()
    assert json.loads(manifest.read_text())["files"][0]["path"] == "/etc/app/s"


def test_broken_manifest_is_named(host: FakeHost) -> None:
    host.apply(files=[A])
    host.at("/var/lib/selfhost/config/set.json").write_text("{")
    with pytest.raises(TransactionError, match=r"set\.json: the manifest of what is managed cannot be read"):
        host.apply(files=[A])


def test_unknown_owner_is_an_error_and_a_warning_in_check_mode(host: FakeHost) -> None:
    files = [{**A, "owner": "nobody-here"}]
    outcome = host.apply(files=files, check=True)
    assert outcome.changed and "there is no user nobody-here on this host" in outcome.warnings[0]
    with pytest.raises(TransactionError, match="there is no user nobody-here"):
        host.apply(files=files)
    assert host.tree() == {}


def test_check_mode_writes_nothing_at_all(host: FakeHost) -> None:
    outcome = host.apply(
        files=[A], directories=[{"path": "/etc/app"}], validate=[["check"]], units=[{"name": "app"}], check=True
    )
    assert outcome.changed and outcome.validated and outcome.diff
    assert host.tree("/") == {"/etc": ("/", host.at("/etc").stat().st_mode & 0o7777)}
    assert host.steps == []


def test_secret_content_is_in_no_diff(host: FakeHost) -> None:
    host.apply(files=[{"path": "/etc/app/s", "secret_content": "old-hunter2"}])
    changed = host.apply(files=[{"path": "/etc/app/s", "secret_content": "new-hunter2"}])
    # A file that stops being secret was one: its former bytes stay unseen.
    opened = host.apply(files=[{"path": "/etc/app/s", "content": "plain"}])
    gone = host.apply(files=[])
    text = json.dumps([changed.diff, opened.diff])
    assert "hunter2" not in text and "(secret content, before)" in text
    assert gone.diff[0]["before"] == "plain"


def test_private_stranger_is_not_shown_when_removed(host: FakeHost) -> None:
    host.put("/etc/app/key", "hunter2", mode=0o600)
    outcome = host.apply(files=[], directories=[{"path": "/etc/app"}])
    assert outcome.removed_files == ["/etc/app/key"] and "hunter2" not in json.dumps(outcome.diff)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"name": "../x"}, "name: '../x' becomes a file name"),
        ({"files": [{"path": "etc/x", "content": ""}]}, "not a plain absolute path"),
        ({"files": [{"path": "/etc/../x", "content": ""}]}, "not a plain absolute path"),
        ({"files": [{"path": "/x", "content": "", "mode": "420"}]}, "in octal, with a leading zero"),
        ({"files": [{"path": "/x"}]}, "exactly one of template, content, secret_content and link"),
        ({"files": [{"path": "/x", "content": "", "link": "y"}]}, "exactly one of template, content"),
        ({"files": [{"path": "/x", "link": ""}]}, r"files\[0\]\.link \(/x\): '' is nothing that a link can point at"),
        ({"files": [{"path": "/x", "content": ""}] * 2}, "files: listed more than once: /x"),
        ({"directories": [{"path": "/etc"}]}, "/etc is shared with the system"),
        ({"validate": ["nginx -t"]}, r"validate\[0\]: a command is a list"),
        ({"units": [{"name": "a b"}]}, "is not the name of a unit"),
        ({"units": [{"name": "a"}, {"name": "a.service"}]}, "units: listed more than once: a.service"),
    ],
)
def test_mistakes_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(TransactionError, match=message):
        SetSpec.from_params({"name": "set", **params})


def test_shared_folder_may_be_owned_by_a_pattern() -> None:
    params = {"name": "s", "directories": [{"path": "/etc/nginx", "pattern": "x*", "owner": USER, "group": GROUP}]}
    assert SetSpec.from_params(params).directories[0].pattern == "x*"
