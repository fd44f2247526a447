from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.release import Outcome, ReleaseError, Wanted, ensure, fetch
from ansible_collections.selfhost.fleet.plugins.module_utils.release import install as install_module
from ansible_collections.selfhost.fleet.plugins.module_utils.release import store as store_module
from ansible_collections.selfhost.fleet.plugins.module_utils.release.install import Host


class Bench:
    """A component's folder, sources for it, and a clock that goes on by a second with each look."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "opt" / "server"
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.seconds = 1000.0

    def now(self) -> float:
        self.seconds += 1
        return self.seconds

    def program(self, version: str, more: str = "") -> Path:
        path = self.folder / f"source-{version}"
        path.write_text(f"#!/bin/sh\necho prog {version}{more}\n")
        return path

    def options(self, version: str, source: Path | None = None, /, **changes: Any) -> dict[str, Any]:
        source = source or self.program(version)
        checksum = (
            f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}" if source.exists() else f"sha256:{'0' * 64}"
        )
        given = {
            "root": str(self.root),
            "version": version,
            "source": str(source),
            "source_on_host": True,
            "checksum": checksum,
            "executable": "prog",
            "version_command": ["{executable}"],
        }
        return {**given, **changes}

    def ensure(self, version: str, source: Path | None = None, /, *, dry_run: bool = False, **changes: Any) -> Outcome:
        wanted = Wanted.from_mapping(self.options(version, source, **changes))
        return ensure(wanted, dry_run=dry_run, host=Host(proc=self.proc, now=self.now))

    def tree(self) -> dict[str, str]:
        found = {}
        for path in sorted(self.folder.glob("opt/**/*")):
            key = str(path.relative_to(self.folder))
            if path.is_symlink():
                found[key] = f"-> {path.readlink()}"
            else:
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    for item in (tmp_path, *tmp_path.parents):
        if item in (Path("/tmp"), Path("/")):
            break
        item.chmod(0o755)
    return Bench(tmp_path)


def test_install_and_again(bench: Bench) -> None:
    first = bench.ensure("1.0", links={"blue": "1.0"})
    assert (first.changed, first.installed, first.said) == (True, True, "prog 1.0")
    release = bench.root / "releases" / "1.0"
    assert sorted(path.name for path in release.iterdir()) == [".release.json", "prog"]
    assert oct((release / "prog").stat().st_mode & 0o7777) == "0o755"
    assert (bench.root / "blue").readlink() == Path("releases/1.0")
    manifest = json.loads((release / ".release.json").read_text())
    assert manifest["sha256"] == hashlib.sha256((release / "prog").read_bytes()).hexdigest()
    before = bench.tree()
    again = bench.ensure("1.0", links={"blue": "1.0"})
    assert (again.changed, again.installed, again.before) == (False, False, again.after)
    assert bench.tree() == before


def test_modes_do_not_depend_on_the_umask(bench: Bench) -> None:
    former = os.umask(0o077)
    try:
        bench.ensure("1.0")
    finally:
        os.umask(former)
    for path in (bench.root.parent, bench.root, bench.root / "releases", bench.root / "releases" / "1.0"):
        assert path.stat().st_mode & 0o777 == 0o755, path


def test_dry_run_on_a_bare_host_touches_nothing_and_says_what_would_be(bench: Bench) -> None:
    outcome = bench.ensure("1.0", links={"blue": "1.0"}, dry_run=True)
    assert outcome.changed and outcome.installed
    assert outcome.after == {"releases": ["1.0"], "links": {"blue": "1.0"}}
    assert not (bench.folder / "opt").exists()
    done = bench.ensure("1.0", links={"blue": "1.0"})
    assert (done.before, done.after) == (outcome.before, outcome.after)
    assert outcome.diff()["after"] == "release 1.0\nlink blue -> 1.0\n"


def test_the_controllers_file_is_asked_for_only_when_it_is_needed(bench: Bench) -> None:
    options = bench.options("1.0", source_on_host=False)
    wanted, host = Wanted.from_mapping(options), Host(proc=bench.proc)
    assert ensure(wanted, host=host).needed
    assert not (bench.folder / "opt").exists()
    assert ensure(wanted, delivered=Path(options["source"]), host=host).installed
    outcome = ensure(wanted, host=host)
    assert (outcome.needed, outcome.changed) == (False, False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checksum": f"sha256:{'a' * 64}"}, "has the checksum sha256:"),
        ({"version_pattern": "prog 9"}, "does not say that it is 1.0"),
        ({"member": "prog"}, "is no archive: leave member out"),
        ({"source": "/absent/file"}, "is no file on this host"),
        ({"links": {"blue": "0.9"}}, "links.blue is 0.9, which is not installed below"),
    ],
)
def test_a_failure_leaves_nothing_behind(bench: Bench, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        bench.ensure("1.0", **changes)
    assert words in str(caught.value)
    assert not (bench.folder / "opt").exists()


@pytest.mark.parametrize("step", ["copy", "unpack", "check_version", "_sign", "settle", "sync_folder"])
def test_a_full_disk_at_any_step_leaves_the_former_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bench.ensure("1.0", links={"blue": "1.0"})
    before = bench.tree()
    archive = bench.folder / "a.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(bench.program("2.0"), "prog")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    owner: object = fetch if step == "copy" else install_module
    monkeypatch.setattr(owner, step, full)
    with pytest.raises(ReleaseError, match=r"The disk is full: Installing 2.0 failed below .*MiB free.*lower keep"):
        bench.ensure("2.0", archive, links={"blue": "2.0"})
    monkeypatch.undo()
    after = bench.tree()
    # After its last rename the release is whole, and may stay; the link was not moved.
    assert {name: value for name, value in after.items() if "/2.0" not in name} == before
    assert step == "sync_folder" or after == before


def test_killed_between_any_two_steps_the_next_run_mends_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    bench.ensure("1.0", links={"blue": "1.0"})
    for number, step in enumerate(("_source", "check_version", "_sign", "settle", "sync_folder")):
        version = f"2.{number}"
        with monkeypatch.context() as patch:
            # A killed process does not clean up.
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            patch.setattr(install_module, step, kill)
            with pytest.raises(Killed):
                bench.ensure(version, keep=9, links={"blue": version})
        assert (bench.root / "blue").readlink() == Path("releases/1.0" if number == 0 else f"releases/2.{number - 1}")
        assert bench.ensure(version, keep=9, links={"blue": version}).changed
        assert not [name for name in bench.tree() if ".incoming" in name or "/.blue" in name]


def test_the_same_version_from_another_file(bench: Bench) -> None:
    bench.ensure("1.0")
    with pytest.raises(ReleaseError, match=r"A release is never changed.*another version name \(as 1.0\+2\)"):
        bench.ensure("1.0", bench.program("1.0", " rebuilt"))
    bench.ensure("1.0+2", bench.program("1.0", " rebuilt"), version_pattern="prog 1.0 rebuilt")


def test_a_release_that_was_changed_by_hand(bench: Bench) -> None:
    bench.ensure("1.0")
    program = bench.root / "releases" / "1.0" / "prog"
    os.utime(program)
    assert not bench.ensure("1.0").changed, "only its time differs"
    program.write_text("#!/bin/sh\necho prog 6.6\n")
    with pytest.raises(ReleaseError, match=r"was changed since it was installed. Remove .*/1.0, then run again"):
        bench.ensure("1.0")
    program.unlink()
    with pytest.raises(ReleaseError, match="is gone or was changed"):
        bench.ensure("1.0")


def test_what_others_put_there_is_left_alone(bench: Bench) -> None:
    theirs = bench.root / "releases" / "1.0"
    theirs.mkdir(parents=True)
    with pytest.raises(ReleaseError, match="was not made by this collection"):
        bench.ensure("1.0")
    for version in ("2.0", "2.1", "2.2"):
        bench.ensure(version, keep=1)
    assert theirs.is_dir()
    (bench.root / "blue").mkdir()
    with pytest.raises(ReleaseError, match="is no link"):
        bench.ensure("2.2", links={"blue": "2.2"})


def test_links_move_without_a_moment_without_them(bench: Bench) -> None:
    bench.ensure("1.0", links={"blue": "1.0", "green": "1.0"})
    bench.ensure("2.0")
    missing: list[str] = []
    end = threading.Event()

    def watch() -> None:
        while not end.is_set():
            try:
                (bench.root / "blue" / "prog").read_bytes()
            except OSError as error:
                missing.append(str(error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for version in ("2.0", "1.0") * 20:
            assert bench.ensure(version, links={"blue": version}).changed
    finally:
        end.set()
        watcher.join()
    assert not missing
    outcome = bench.ensure("2.0", links={"green": None})
    assert outcome.after["links"] == {"blue": "1.0"}, "what is not named stays"


def test_retention(bench: Bench) -> None:
    bench.ensure("1.0", links={"blue": "1.0"})
    for version in ("1.1", "1.2", "1.3"):
        bench.ensure(version, keep=9)
    (bench.proc / "7").mkdir()
    (bench.proc / "7" / "exe").symlink_to(bench.root / "releases" / "1.2" / "prog")
    foreseen = bench.ensure("1.4", keep=1, dry_run=True)
    outcome = bench.ensure("1.4", keep=1)
    assert outcome.removed == foreseen.removed == ("1.1", "1.3")
    assert outcome.after == foreseen.after
    assert outcome.after["releases"] == ["1.0", "1.2", "1.4"], "linked, running, and new"
    assert not bench.ensure("1.4", keep=1).changed
    shutil.rmtree(bench.proc / "7")
    assert bench.ensure("1.4", keep=1).removed == ("1.2",), "it has ended meanwhile"


def test_nothing_is_removed_while_what_a_process_runs_cannot_be_told(bench: Bench) -> None:
    for version in ("1.0", "1.1"):
        bench.ensure(version, links={"blue": version})
    process = bench.proc / "7"
    process.mkdir()
    (process / "exe").symlink_to("/usr/bin/python3.11")
    (process / "cwd").symlink_to("/")
    (process / "cmdline").write_bytes(f"python3\0{bench.root}/blue/app.pyz\0".encode())
    (process / "stat").write_text(f"7 (a b) c) S {'0 ' * 18}1 0")
    outcome = bench.ensure("1.2", keep=1)
    assert outcome.removed == ()
    assert "7 (" in outcome.warnings()[0]


def test_two_runs_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = bench.folder / "a.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(bench.program("1.0"), "prog")
        filler = tarfile.TarInfo("filler")
        filler.size = 1 << 20
        packed.addfile(filler, io.BytesIO(bytes(filler.size)))
    outcomes: list[Outcome] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            outcomes.append(bench.ensure("1.0", archive, links={"blue": "1.0"}))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run) for _thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert [outcome.installed for outcome in outcomes].count(True) == 1
    monkeypatch.setattr(store_module, "LOCK_WAIT", 0.2)
    wanted = Wanted.from_mapping(bench.options("2.0"))
    with store_module.Store(wanted).locked(), pytest.raises(ReleaseError, match="Another run has been changing"):
        bench.ensure("2.0")


def test_a_run_that_changes_nothing_is_fast(bench: Bench) -> None:
    bench.ensure("1.0", links={"blue": "1.0"})
    wanted = Wanted.from_mapping(bench.options("1.0", links={"blue": "1.0"}))
    begin = time.monotonic()
    for _run in range(20):
        ensure(wanted)
    assert (time.monotonic() - begin) / 20 < 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"root": "opt"}, "root is 'opt'"),
        ({"root": "/opt"}, "root is '/opt'"),
        ({"root": "/opt/../etc"}, "root is"),
        ({"checksum": "md5:1"}, "64 hexadecimal digits"),
        ({"version": "../1"}, "version is '../1'"),
        ({"version": ".hidden"}, "version is '.hidden'"),
        ({"executable": "/bin/sh"}, "executable is '/bin/sh'"),
        ({"executable": ".release.json"}, "the release's manifest"),
        ({"member": "a/../../b"}, "member is"),
        ({"source": "http://example.com/x"}, "https address"),
        ({"source": ""}, "source is empty"),
        ({"links": {"releases": "1.0"}}, "not a name for a link"),
        ({"links": {"a/b": "1.0"}}, "not a name for a link"),
        ({"keep": -1}, "at least one release stays"),
        ({"mode": "4755"}, "without special bits"),
        ({"mode": "0644"}, "executable for its owner"),
    ],
)
def test_mistakes_name_the_option(bench: Bench, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        Wanted.from_mapping(bench.options("1.0", **changes))
    assert words in str(caught.value)
