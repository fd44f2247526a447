"""Overrides of dpkg's: made, kept, taken away with the former rights, and never those of others."""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.permissions import (
    Outcome,
    Overrides,
    PermissionsError,
    Rights,
    wanted,
)

ME, OURS = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


class Dpkg:
    """dpkg-statoverride over a temporary folder, as far as it can be had without root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, tuple[str, str, str]] = {}
        self.refuse = ""

    def run(self, argv: Sequence[str], **_: Any) -> CommandResult:
        words = tuple(argv)
        if words[1] == "--list":
            rows = (f"{' '.join(row)} {path}\n" for path, row in self.rows.items())
            return CommandResult(words, 0 if self.rows else 1, "".join(rows))
        path = words[-1]
        if path == self.refuse:
            return CommandResult(words, 2, "", "dpkg-statoverride: error: no")
        if "--remove" in words:
            del self.rows[path]
            return CommandResult(words, 0)
        assert path not in self.rows, "dpkg refuses a second one"
        self.rows[path] = (words[-4], words[-3], words[-2].lstrip("0"))
        if "--update" in words:
            (self.root / path.lstrip("/")).chmod(int(words[-2], 8))
        return CommandResult(words, 0)

    def which(self, executable: str) -> str | None:
        return executable


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.dpkg = Dpkg(root)
        (root / "su").write_text("")
        (root / "su").chmod(0o4755)

    def apply(self, *, check: bool = False, **modes: str) -> Outcome:
        rights = {f"/{name}": Rights(ME, OURS, mode) for name, mode in modes.items()}
        return Overrides(self.dpkg, root=self.root).apply(rights, check=check)

    def mode(self) -> str:
        return f"{(self.root / 'su').stat().st_mode & 0o7777:04o}"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_an_override_is_made_once(host: Host) -> None:
    assert list(host.apply(su="0750").after) == ["/su"]
    assert (host.mode(), host.dpkg.rows) == ("0750", {"/su": (ME, OURS, "750")})
    assert not host.apply(su="0750").changed


def test_a_mode_that_was_changed_by_hand_is_put_right(host: Host) -> None:
    host.apply(su="0750")
    (host.root / "su").chmod(0o4777)
    assert host.apply(su="0750").changed
    assert host.mode() == "0750"
    host.apply()
    assert host.mode() == "4755", "what is given back is what was there before the first override"


def test_another_mode_replaces_the_first(host: Host) -> None:
    host.apply(su="0750")
    assert host.apply(su="0700").changed
    host.apply()
    assert (host.mode(), host.dpkg.rows) == ("4755", {})


def test_what_is_no_longer_wanted_has_its_former_rights_again(host: Host) -> None:
    host.apply(su="0750")
    outcome = host.apply()
    assert outcome.after == {"/su": None}
    assert (host.mode(), host.dpkg.rows) == ("4755", {})
    assert not host.apply().changed


def test_a_path_that_is_not_there_yet_is_overridden_for_its_package(host: Host) -> None:
    assert host.apply(later="0700").changed
    assert not host.apply(later="0700").changed
    assert host.apply().changed
    assert host.dpkg.rows == {}


def test_an_override_of_somebody_else_is_left_alone(host: Host) -> None:
    host.dpkg.rows["/su"] = (ME, OURS, "4711")
    outcome = host.apply(su="0750")
    assert not outcome.changed and outcome.left == [f"/su ({ME}:{OURS} 4711)"]
    host.apply()
    assert host.dpkg.rows == {"/su": (ME, OURS, "4711")}


def test_check_mode_foretells_and_touches_nothing(host: Host) -> None:
    assert host.apply(su="0750", check=True).changed
    assert (host.mode(), host.dpkg.rows, list(host.root.iterdir())) == ("4755", {}, [host.root / "su"])


def test_a_refusal_has_dpkg_s_words_and_the_next_run_goes_on(host: Host) -> None:
    host.dpkg.refuse = "/su"
    with pytest.raises(PermissionsError, match="error: no"):
        host.apply(su="0750")
    host.dpkg.refuse = ""
    host.apply(su="0750")
    assert host.mode() == "0750"
    record = json.loads((host.root / "var/lib/selfhost/permissions.json").read_text())
    assert record["/su"]["mode"] == "4755"


def test_modes_are_compared_as_numbers() -> None:
    assert wanted([{"path": "/a", "owner": "root", "group": "root", "mode": "755"}])["/a"].mode == "0755"
