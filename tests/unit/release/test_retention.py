from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.release.retention import in_use, prunable

FIVE = {"1.0": 10.0, "1.1": 20.0, "1.2": 30.0, "1.10": 40.0, "2.0": 50.0}


@pytest.mark.parametrize(
    ("keep", "protected", "gone"),
    [
        (5, (), []),
        (9, (), []),
        (3, (), ["1.0", "1.1"]),
        (1, (), ["1.0", "1.1", "1.2", "1.10"]),
        (3, ("1.0",), ["1.1"]),
        (1, ("1.0", "1.10"), ["1.1", "1.2"]),
        (2, ("2.0",), ["1.0", "1.1", "1.2"]),
        (1, tuple(FIVE), []),
    ],
)
def test_the_newest_stay_by_installation_and_the_protected_beside_them(
    keep: int, protected: tuple[str, ...], gone: list[str]
) -> None:
    assert prunable(FIVE, keep, protected) == gone


def test_an_old_version_installed_again_is_new() -> None:
    assert prunable({"2.0": 1.0, "2.1": 2.0, "1.0": 3.0}, 2, ()) == ["2.0"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "opt" / "server"
    for version in ("1.0", "2.0"):
        (root / "releases" / version).mkdir(parents=True)
    return root


def run(*command: str | Path, cwd: Path = Path("/")) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([str(item) for item in command], cwd=cwd, stdin=subprocess.PIPE)
    time.sleep(0.1)
    assert process.poll() is None
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_a_program_that_runs(root: Path) -> None:
    program = root / "releases" / "1.0" / "prog"
    shutil.copy("/bin/sleep", program)
    process = run(program, "60")
    try:
        assert in_use(root, ["1.0", "2.0"]).versions == {"1.0"}
        program.unlink()
        assert in_use(root, ["1.0", "2.0"]).versions == {"1.0"}, "its path ends with (deleted) now"
    finally:
        end(process)
    assert in_use(root, ["1.0", "2.0"]).versions == frozenset()


def test_a_script_is_named_only_by_the_arguments_of_its_interpreter(root: Path) -> None:
    script = root / "releases" / "1.0" / "app.pyz"
    script.write_text("input()")
    for process in (run(sys.executable, script), run(sys.executable, "releases/1.0/app.pyz", cwd=root)):
        try:
            assert in_use(root, ["1.0", "2.0"]).versions == {"1.0"}
        finally:
            end(process)


def test_a_working_folder(root: Path) -> None:
    process = run("/bin/sleep", "60", cwd=root / "releases" / "2.0")
    try:
        assert in_use(root, ["1.0", "2.0"]).versions == {"2.0"}
    finally:
        end(process)


def test_a_script_started_through_a_link(root: Path) -> None:
    (root / "releases" / "1.0" / "app.pyz").write_text("input()")
    link = root / "blue"
    link.symlink_to("releases/1.0")
    process = run(sys.executable, link / "app.pyz")
    try:
        use = in_use(root, ["1.0", "2.0"])
        assert (set(use.versions), use.unsure) == ({"1.0"}, ())
        fresh = root / ".blue"
        fresh.symlink_to("releases/2.0")
        fresh.replace(link)
        use = in_use(root, ["1.0", "2.0"])
        assert [item.split()[0] for item in use.unsure] == [str(process.pid)], "what it runs cannot be told any more"
    finally:
        end(process)


def test_a_program_started_through_a_link_that_moved_on_is_known_by_its_exe(root: Path) -> None:
    shutil.copy("/bin/sleep", root / "releases" / "1.0" / "prog")
    link = root / "blue"
    link.symlink_to("releases/1.0")
    process = run(link / "prog", "60")
    try:
        link.unlink()
        link.symlink_to("releases/2.0")
        use = in_use(root, ["1.0", "2.0"])
        # Its arguments name 2.0 by now: one release too many stays, never one too few.
        assert (set(use.versions), use.unsure) == ({"1.0", "2.0"}, ())
    finally:
        end(process)


def test_another_component_with_a_longer_name_is_not_this_one(root: Path) -> None:
    other = root.with_name("server2") / "releases" / "1.0"
    other.mkdir(parents=True)
    process = run("/bin/sleep", "60", cwd=other)
    try:
        assert in_use(root, ["1.0", "2.0"]).versions == frozenset()
    finally:
        end(process)


def test_a_process_that_cannot_be_read_is_passed_over(root: Path, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "7").mkdir(parents=True)
    (proc / "self").mkdir()
    assert in_use(root, ["1.0"], proc).versions == frozenset()
    (proc / "7" / "exe").symlink_to(f"{root}/releases/1.0/prog (deleted)")
    assert in_use(root, ["1.0"], proc).versions == {"1.0"}
