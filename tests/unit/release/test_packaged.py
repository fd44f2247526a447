"""A release that is a package: one at a time, with dpkg's version, and no unit of its own beside ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.release import (
    Outcome,
    Packaged,
    ReleaseError,
    ensure_packaged,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.release.model import Manifest


@dataclass
class Dpkg:
    """A host with one package, and with units that run."""

    folder: Path
    version: str = "2.11.0-2+b4"
    status: str = "ii "
    units: list[str] = field(default_factory=lambda: ["ntfy.service", "ntfy@.service", "ntfy.timer"])
    running: list[str] = field(default_factory=list)

    @property
    def program(self) -> Path:
        return self.folder / "usr" / "bin" / "ntfy"

    @property
    def root(self) -> Path:
        return self.folder / "opt" / "ntfy" / "server"

    def put(self, version: str) -> None:
        self.version = version
        self.program.parent.mkdir(parents=True, exist_ok=True)
        self.program.write_text(f"ntfy {version}")

    def run(self, argv: Any, **_: Any) -> CommandResult:
        if "--listfiles" in argv:
            return CommandResult((), 0, "".join(f"/usr/lib/systemd/system/{unit}\n" for unit in self.units))
        if argv[0] == "systemctl":
            asked = argv[argv.index("--") + 1 :]
            return CommandResult((), 3, "".join(f"{'active' if u in self.running else 'inactive'}\n" for u in asked))
        return CommandResult((), 0 if self.status else 1, f"{self.status} {self.version}" if self.status else "")

    def which(self, executable: str) -> str | None:
        return executable

    def ensure(self, version: str = "2.11.0", *, dry_run: bool = False, **changes: Any) -> Outcome:
        options = {"root": str(self.root), "version": version, "package": "ntfy", "program": str(self.program)}
        options |= {"executable": "ntfy", "links": {"blue": version}, **changes}
        wanted = Packaged.from_mapping(options)
        return ensure_packaged(
            wanted, runner=self, dry_run=dry_run, now=lambda: 1000.0, systemd=self.folder / "systemd"
        )


@pytest.fixture
def dpkg(tmp_path: Path) -> Dpkg:
    made = Dpkg(tmp_path)
    made.put("2.11.0-2+b4")
    return made


@pytest.mark.parametrize("version", ["2.11.0", "distribution"])
def test_the_slot_runs_the_package_s_program_and_a_second_run_changes_nothing(dpkg: Dpkg, version: str) -> None:
    first, second = dpkg.ensure(version), dpkg.ensure(version)
    assert first.changed and first.installed and not second.changed
    assert first.as_result()["version"] == "2.11.0-2+b4"
    assert (dpkg.root / "blue" / "ntfy").read_text() == "ntfy 2.11.0-2+b4"
    manifest = Manifest.read(dpkg.root / "blue")
    assert manifest and manifest.package == "ntfy 2.11.0-2+b4"


def test_its_own_units_will_not_start_when_they_are_masked_no_longer(dpkg: Dpkg) -> None:
    wants = dpkg.folder / "systemd" / "multi-user.target.wants"
    wants.mkdir(parents=True)
    for unit in ("ntfy.service", "other.service"):
        (wants / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    dpkg.ensure(units=["ntfy.service"], dry_run=True)
    assert len(list(wants.iterdir())) == 2
    dpkg.ensure(units=["ntfy.service"])
    assert [link.name for link in wants.iterdir()] == ["other.service"]


def test_check_mode_tells_and_makes_nothing(dpkg: Dpkg) -> None:
    told = dpkg.ensure(dry_run=True)
    assert told.changed and not dpkg.root.exists()
    assert dpkg.ensure().after == told.after
    dpkg.status = ""
    bare = dpkg.ensure("2.12.0", dry_run=True)
    assert bare.changed and bare.after["links"] == {"blue": "2.12.0"}


def test_a_newer_revision_takes_the_place_of_the_former(dpkg: Dpkg) -> None:
    dpkg.ensure(links={"blue": "2.11.0", "green": "2.11.0"})
    dpkg.put("2.11.0-2+deb13u1")
    outcome = dpkg.ensure()
    assert outcome.removed == ("2.11.0-2+b4",)
    # dpkg has taken the former program away: no slot may point at what says that it is there.
    assert outcome.after["releases"] == ["2.11.0-2+deb13u1"]
    assert [path.name for path in (dpkg.root / "releases").iterdir()] == ["2.11.0-2+deb13u1"]


def test_a_former_release_that_was_a_file_stays(dpkg: Dpkg) -> None:
    former = dpkg.root / "releases" / "2.10.0"
    former.mkdir(parents=True)
    manifest = Manifest(
        version="2.10.0", checksum="sha256:0", executable="ntfy", sha256="0", size=1, mtime_ns=1, installed=1.0
    )
    (former / ".release.json").write_text(manifest.as_json())
    assert dpkg.ensure().after["releases"] == ["2.10.0", "2.11.0-2+b4"]


def test_an_epoch_is_no_part_of_a_folder_s_name(dpkg: Dpkg) -> None:
    dpkg.put("1:2.11.0-2")
    assert dpkg.ensure().as_result()["version"] == "2.11.0-2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": ""}, "The role baseline installs it"),
        ({"status": "rc "}, "The role baseline installs it"),
        ({"version": "2.12.0-1"}, "is 2.12.0-1 on this host, and 2.11.0 was asked for"),
        ({"running": ["ntfy.service"]}, "runs ntfy.service of its own"),
    ],
    ids=["none", "removed", "another version", "running"],
)
def test_what_is_refused_leaves_nothing(dpkg: Dpkg, change: dict[str, Any], words: str) -> None:
    for name, value in change.items():
        setattr(dpkg, name, value)
    with pytest.raises(ReleaseError, match=words):
        dpkg.ensure()
    assert not (dpkg.folder / "opt").exists()


def test_a_program_that_is_not_there(dpkg: Dpkg) -> None:
    with pytest.raises(ReleaseError, match="has no program /nowhere/ntfy"):
        dpkg.ensure(program="/nowhere/ntfy")


def test_a_program_that_was_changed(dpkg: Dpkg) -> None:
    dpkg.ensure()
    dpkg.program.write_text("somebody else's")
    with pytest.raises(ReleaseError, match="apt-get install --reinstall ntfy"):
        dpkg.ensure()


@pytest.mark.parametrize("options", [{"package": "../x"}, {"program": "ntfy"}, {"root": "/opt"}], ids=str)
def test_senseless_options(dpkg: Dpkg, options: dict[str, str]) -> None:
    with pytest.raises(ReleaseError):
        dpkg.ensure(**options)
